"""sidelight: light from the side.

It records what your functions did, beside and outside them, and does not change what they do.
"""

import sys
from typing import TYPE_CHECKING

from sidelight.emission import Receipt, bind, with_context
from sidelight.exceptions import SidelightError
from sidelight.host import lazily
from sidelight.points import arg, choose, emit, emits, error, result
from sidelight.runtime import configure, flush
from sidelight.version import __version__

if not getattr(sys, "_is_gil_enabled", lambda: True)():  # after imports, which may enable it
    raise ImportError(
        "sidelight needs the GIL, because without it records of several threads would overwrite"
        " each other; start Python with -X gil=1 or PYTHON_GIL=1, or use the standard build"
    )

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
