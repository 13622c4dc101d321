"""The floor: the bare call, and the cheapest way to report it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import wrapt

from benchmarks.houses import Subjects
from benchmarks.work import Subject

BARE: Final = "bare call"
WRAPT: Final = "wrapt + two clocks"
FLOOR: Final = "floor: wrapt + two clocks + os.write"
_RECORD: Final = b"." * 255 + b"\n"
_clock: Final = time.perf_counter_ns


def floor(directory: Path) -> Iterator[Subjects]:
    """The bare call; wrapt and two clocks around it; and these with a record of 256 bytes."""
    fd = os.open(directory / "floor.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    @wrapt.decorator
    def clocked(wrapped: Any, _instance: Any, args: Any, kwargs: Any) -> Any:
        begun = _clock()
        value = wrapped(*args, **kwargs)
        _clock() - begun
        return value

    @wrapt.decorator
    def written(wrapped: Any, _instance: Any, args: Any, kwargs: Any) -> Any:
        begun = _clock()
        value = wrapped(*args, **kwargs)
        _clock() - begun
        os.write(fd, _RECORD)
        return value

    try:
        yield {
            BARE: Subject.of(lambda work: work),
            WRAPT: Subject.of(clocked),
            FLOOR: Subject.of(written),
        }
    finally:
        os.close(fd)
