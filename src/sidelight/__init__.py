"""sidelight: light from the side.

It shows what your functions did, from beside and outside them, and touches nothing.
"""

from typing import TYPE_CHECKING, Any

import sidelight.forks  # noqa: F401  # its hooks
from sidelight.decorator import emits
from sidelight.direct import emit
from sidelight.exceptions import SidelightError
from sidelight.fields import arg, choose, error, result
from sidelight.receipt import Receipt
from sidelight.runtime import configure, flush
from sidelight.span import bind
from sidelight.version import __version__

if TYPE_CHECKING:
    from sidelight.event import Event, catalogue
    from sidelight.store import Store
    from sidelight.weaving import weave

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
    if name in {"Event", "catalogue"}:
        from sidelight import event  # noqa: PLC0415

        return getattr(event, name)
    if name == "weave":
        from sidelight.weaving import weave  # noqa: PLC0415

        return weave
    raise AttributeError(f"module 'sidelight' has no attribute {name!r}")
