"""Run the suites of the rooms as on other operating systems: ``make test-platforms``.

No other system is here. `tests/support/hidden` takes away from sidelight the names that macOS or
Windows lack, in the test process and in the programs that it starts.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

import pytest
from tests.support.suites import passes

from sidelight.host import HAS_FILE_LOCKS
from sidelight.spool import filesystem

PLATFORMS: Final = ("darwin", "windows")
_HIDDEN: Final = Path(__file__).with_name("hidden")
_SUITES: Final = (
    *("record", "host", "spool", "points", "emission", "relay", "runtime", "store", "otlp", "maps"),
    "testing",
)
#: Outboxes, the reference pipeline that has one, and what commands tell: a spool in files.
_OF_FILES: Final = ("transactions", "voice_notes", "cli")
_JOBS: Final = (os.cpu_count() or 1) + 1

PLATFORM: Final = os.environ.get("SIDELIGHT_TEST_PLATFORM", "linux")
needs_tmpfs = pytest.mark.skipif(
    filesystem(Path("/dev/shm")) != "tmpfs", reason="/dev/shm is no tmpfs here: mount one there"
)
needs_linux = pytest.mark.skipif(
    PLATFORM != "linux", reason="only Linux shows what another process does"
)
needs_spool_files = pytest.mark.skipif(
    not HAS_FILE_LOCKS, reason="without file locks the spool lies in memory"
)


def seen_as(platform: str) -> dict[str, str]:
    """The environment of a program that is to see itself on another system."""
    path = os.pathsep.join(filter(None, (str(_HIDDEN), os.environ.get("PYTHONPATH", ""))))
    return {**os.environ, "PYTHONPATH": path, "SIDELIGHT_TEST_PLATFORM": platform}


def _run(platform: str) -> bool:
    print(f"as on {platform}:", flush=True)
    of_files = () if platform == "windows" else _OF_FILES
    suites = (f"tests/{suite}" for suite in (*_SUITES, *of_files))
    return passes(
        sys.executable, suites, "-k", "not postgres", jobs=_JOBS, environment=seen_as(platform)
    )


if __name__ == "__main__":
    passed = [_run(platform) for platform in PLATFORMS]
    sys.exit(not all(passed))
