"""The directory that `sidelight run` puts on the path of the programs that it starts."""

from pathlib import Path


def bootstrap_directory() -> Path:
    """Return the directory that holds the `sitecustomize` of a program under a map."""
    return Path(__file__).parent
