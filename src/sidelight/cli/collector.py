"""The garbage collector, in a process that is sidelight's own.

The collector looks for cycles after each 700 new objects, and from time to time through all objects
of the process. A batch is some ten thousand new objects, and none of them is in a cycle. Only a
command changes what the collector does, because the threads of an application may need it.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from typing import Final

_NEW_OBJECTS: Final = 50_000
"""New objects after which the collector looks for cycles: a few megabytes at most wait for it."""


@contextlib.contextmanager
def collecting_seldom() -> Iterator[None]:
    """Let the collector look seldom while the block runs."""
    before = gc.get_threshold()
    # The older generations follow as often as before, counted in looks at the youngest.
    gc.set_threshold(_NEW_OBJECTS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


@contextlib.contextmanager
def without_collector() -> Iterator[None]:
    """Pause the collector while the block runs: it makes thousands of objects and no cycle."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
