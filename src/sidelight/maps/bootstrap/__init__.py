"""The directory that `sidelight run` puts on the path of the programs that it starts."""

from pathlib import Path


def bootstrap_directory() -> Path:
    """The directory that holds the `sitecustomize` of a program under a map."""
    return Path(__file__).parent
