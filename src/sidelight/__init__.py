"""sidelight: light from the side.

It records what your functions did, beside and outside them, and does not change what they do.
"""

from typing import TYPE_CHECKING

from sidelight.emission import Receipt, bind, with_context
from sidelight.exceptions import SidelightError
from sidelight.host import lazily
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
    "with_context",
]

#: These are slow to import, because they need SQLAlchemy, pydantic or wrapt.
__getattr__ = lazily(__name__, {"maps": "weave", "record": "catalogue", "store": "Event Store"})
