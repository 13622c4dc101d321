"""Run pytest in a process of its own, and once more, alone, the tests that failed.

The summary of the first run names them, because a test that passes only alone is a defect to mend.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).parents[2]
_FAILED: Final = ("-n", "0", "-p", "no:randomly", "--last-failed", "--last-failed-no-failures=none")


def passes(
    python: str, suites: Iterable[str], *options: str, jobs: int, environment: Mapping[str, str]
) -> bool:
    """Run the suites with an interpreter in several workers; return whether they pass."""

    def run(*more: str) -> bool:
        command = [python, "-m", "pytest", "-q", *options, *more, *suites]
        return subprocess.run(command, cwd=_ROOT, env=environment, check=False).returncode == 0

    suites = tuple(suites)
    if run("-n", str(jobs)):
        return True
    print("once more, alone, the tests that failed:", flush=True)
    return run(*_FAILED)
