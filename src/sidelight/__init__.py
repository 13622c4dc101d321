"""sidelight: light from the side.

It records what your functions did, beside and outside them, and does not change what they do.
"""

import os
import sys
from typing import TYPE_CHECKING

from sidelight.exceptions import SidelightError
from sidelight.host import at_first_use, lazily
from sidelight.version import __version__

if TYPE_CHECKING:
    from sidelight.emission import Receipt, bind, with_context
    from sidelight.maps import weave
    from sidelight.points import arg, choose, emit, emits, error, result
    from sidelight.record import catalogue
    from sidelight.runtime import configure, flush
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

#: Each of these imports what it needs. A process that only imports sidelight needs none of it.
__getattr__ = lazily(
    __name__,
    {
        "emission": "Receipt bind with_context",
        "maps": "weave",
        "points": "arg choose emit emits error result",
        "record": "catalogue",
        "runtime": "configure flush",
        "store": "Event Store",
    },
)


_PUBLIC_MODULES = {"exceptions", "otel", "outbox", "testing"}


def __dir__() -> list[str]:
    return sorted({*__all__, *(_PUBLIC_MODULES & globals().keys())})


def _has_gil() -> bool:
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())


def _load_runtime() -> None:
    # All is imported at once, because a later import may find no free descriptor.
    from sidelight.points import emit  # noqa: F401, PLC0415
    from sidelight.runtime import RUNTIME, configure, flush, restore  # noqa: F401, PLC0415


at_first_use(_load_runtime)

if not {"SIDELIGHT_STORE", "SIDELIGHT_STREAM"}.isdisjoint(os.environ):
    # Perhaps no `configure` and no decorator will come before the first call of `sidelight.emit`.
    from sidelight.points import emit

if not _has_gil():
    _load_runtime()  # msgspec may enable it
if not _has_gil():
    raise ImportError(
        "sidelight needs the GIL, because without it records of several threads would overwrite"
        " each other; start Python with -X gil=1 or PYTHON_GIL=1, or use the standard build"
    )
