"""Commands about code: points, apply, strip, run and catalogue."""

from sidelight.cli.code.reading import import_all

__all__ = ["import_all"]
