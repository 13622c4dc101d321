"""Run the suites of the rooms as on other operating systems: ``make test-platforms``.

No other system is here. `tests/support/hidden` takes away from sidelight the names that macOS or
Windows lack, in the test process and in the programs that it starts.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from sidelight.host import HAS_FILE_LOCKS

ROOT: Final = Path(__file__).parents[2]
PLATFORMS: Final = ("darwin", "windows")
_HIDDEN: Final = ROOT / "tests" / "support" / "hidden"
_SUITES: Final = (
    *("record", "spool", "points/test_callables.py", "points/test_expressions.py"),
    *("points/test_refusals.py", "points/test_tasks_and_annotations.py"),
    *("emission/test_guard.py", "emission/test_ledger.py", "emission/test_contention.py"),
    *("emission/test_loops.py", "emission/test_waiting.py", "relay/test_relay.py"),
    *("runtime", "store/test_store_contract.py", "store/test_processes.py"),
    *("otlp/test_http_exporter.py", "otlp/test_otlp_sink.py", "testing"),
)

PLATFORM: Final = os.environ.get("SIDELIGHT_TEST_PLATFORM", "linux")
needs_spool_files = pytest.mark.skipif(
    not HAS_FILE_LOCKS, reason="without file locks the spool lies in memory"
)


def seen_as(platform: str) -> dict[str, str]:
    """The environment of a program that is to see itself on another system."""
    path = os.pathsep.join(filter(None, (str(_HIDDEN), os.environ.get("PYTHONPATH", ""))))
    return {**os.environ, "PYTHONPATH": path, "SIDELIGHT_TEST_PLATFORM": platform}


def _run(platform: str) -> bool:
    print(f"as on {platform}:", flush=True)
    suites = (f"tests/{suite}" for suite in _SUITES)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "2", "-k", "not postgres", *suites],
        cwd=ROOT,
        env=seen_as(platform),
        check=False,
    )
    return done.returncode == 0


if __name__ == "__main__":
    passed = [_run(platform) for platform in PLATFORMS]
    sys.exit(not all(passed))
