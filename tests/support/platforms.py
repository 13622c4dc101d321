"""Run the suites of the rooms as on other operating systems: ``make test-platforms``.

No other system is here. `tests/support/hidden` takes away from sidelight the names that macOS or
Windows lack, in the test process and in the programs that it starts.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import pytest

from sidelight.host import HAS_FILE_LOCKS

ROOT: Final = Path(__file__).parents[2]
PLATFORMS: Final = ("darwin", "windows")
_HIDDEN: Final = ROOT / "tests" / "support" / "hidden"
_ROOMS: Final = ("points", "emission", "record", "spool", "relay", "runtime", "store", "otlp")

needs_spool_files = pytest.mark.skipif(
    not HAS_FILE_LOCKS, reason="without file locks the spool lies in memory"
)


def seen_as(platform: str) -> dict[str, str]:
    """The environment of a program that is to see itself on another system."""
    path = os.pathsep.join(filter(None, (str(_HIDDEN), os.environ.get("PYTHONPATH", ""))))
    return {**os.environ, "PYTHONPATH": path, "SIDELIGHT_TEST_PLATFORM": platform}
