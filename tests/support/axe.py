"""axe-core, the accessibility checks of Deque."""

from tests.support.npm import npm_file

VERSION = "4.10.3"


def axe() -> str:
    """The script that a page loads; skips where it cannot be had."""
    return npm_file("axe-core", VERSION, "axe.min.js")
