"""The command line: answers in words and in JSON."""

from sidelight.cli.app import main

__all__ = ["main"]
