"""The caller's thread: one record into the spool, without a system call or an exception.

The `emitter` writes records and counts losses. It returns a `receipt`, whose `waiting` for the
store is bounded by the deadline. A `light_span` is the current span while a function runs.
"""

from sidelight.emission.binding import (
    BINDING,
    ambient,
    bind,
    bound,
    with_bound,
    with_context,
)
from sidelight.emission.contention import IDLE
from sidelight.emission.deferred import Deferred, read_attribute, resolved
from sidelight.emission.emitter import EMITTER, MARGIN, ClosedSpool, Head
from sidelight.emission.ledger import Ledger
from sidelight.emission.receipt import JoinedReceipt, Receipt
from sidelight.emission.tracing import TRACING, begin_without_span
from sidelight.emission.waiting import PointWaits, Watermark

__all__ = [
    "BINDING",
    "EMITTER",
    "IDLE",
    "MARGIN",
    "TRACING",
    "ClosedSpool",
    "Deferred",
    "Head",
    "JoinedReceipt",
    "Ledger",
    "PointWaits",
    "Receipt",
    "Watermark",
    "ambient",
    "begin_without_span",
    "bind",
    "bound",
    "read_attribute",
    "resolved",
    "with_bound",
    "with_context",
]
