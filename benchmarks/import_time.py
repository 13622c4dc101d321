"""How long ``import sidelight`` takes, beside what an instrumented program imports anyway."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from typing import Final

OURS: Final = "sidelight"
THEIRS: Final = "opentelemetry.trace"
_CODE: Final = """
import time
begun = time.perf_counter()
import {module}
print(time.perf_counter() - begun)
"""


@dataclass(frozen=True, slots=True)
class ImportTime:
    """Medians in milliseconds, and the median of the ratios of neighbouring rounds."""

    ours: float
    theirs: float
    ratio: float
    rounds: int


def import_time(rounds: int = 15) -> ImportTime:
    """Import both in fresh processes, in turns, from compiled files."""
    with tempfile.TemporaryDirectory(prefix="sidelight-bench-") as compiled:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": compiled}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)

        def once(module: str) -> float:
            answer = subprocess.run(
                [sys.executable, "-c", _CODE.format(module=module)],
                env=environment,
                capture_output=True,
                text=True,
                check=True,
            )
            return float(answer.stdout) * 1e3

        once(OURS), once(THEIRS)  # compiles
        pairs = [(once(OURS), once(THEIRS)) for _ in range(rounds)]
    return ImportTime(
        statistics.median(ours for ours, _ in pairs),
        statistics.median(theirs for _, theirs in pairs),
        statistics.median(ours / theirs for ours, theirs in pairs),
        rounds,
    )
