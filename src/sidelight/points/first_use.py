"""What the first point of a process needs besides this room: the runtime, which opens the spool.

The runtime is on the same floor as this room, which therefore cannot import it. `sidelight` itself
hands over the function that does. A process that imports sidelight, and neither decorates nor emits
anything, never imports the runtime. A point needs it before its first call, because an import may
take longer than the caller's 10 ms.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

_loads: Final[list[Callable[[], object]]] = []


def at_first_use(load: Callable[[], object]) -> None:
    """Have ``load`` called before the first point is made, and before the first direct emission.

    Args:
        load: imports what they need. It may be called more than once, by several threads.
    """
    _loads.append(load)


def load() -> None:
    """Load what points need; modules that make points or emit call this when they are imported."""
    for each in _loads:
        each()
