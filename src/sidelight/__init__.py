"""sidelight: light from the side.

It shows what your functions did, from beside and outside them, and touches nothing.
"""

from typing import TYPE_CHECKING, Any

from sidelight.emission import Receipt, bind
from sidelight.exceptions import SidelightError
from sidelight.points import arg, choose, emit, emits, error, result
from sidelight.runtime import configure, flush
from sidelight.version import __version__

if TYPE_CHECKING:
    from sidelight.maps import weave
    from sidelight.record import catalogue
    from sidelight.store import Event, Store

__all__ = [
    "Event",
    "Receipt",
    "SidelightError",
    "Store",
    "__version__",
    "arg",
    "bind",
    "catalogue",
    "choose",
    "configure",
    "emit",
    "emits",
    "error",
    "flush",
    "result",
    "weave",
]


def __getattr__(name: str) -> Any:
    """Import what asks the store when it is asked for: SQLAlchemy and pydantic are slow to load."""
    if name == "Store":
        from sidelight.store import Store  # noqa: PLC0415

        return Store
    if name == "Event":
        from sidelight.store import Event  # noqa: PLC0415

        return Event
    if name == "catalogue":
        from sidelight.record import catalogue  # noqa: PLC0415

        return catalogue
    if name == "weave":
        from sidelight.maps import weave  # noqa: PLC0415

        return weave
    raise AttributeError(f"module 'sidelight' has no attribute {name!r}")
