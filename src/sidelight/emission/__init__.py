"""The caller's thread: one record into the spool, no system call, never an exception.

The emitter writes and counts what is lost; receipts wait for the store, bounded by the deadline;
the light span stands in OpenTelemetry's context while the function runs.
"""

from sidelight.emission.deferred import Late, known, read
from sidelight.emission.emitter import EMITTER, Closed, Early, Head
from sidelight.emission.ledger import Ledger
from sidelight.emission.receipt import JoinedReceipt, Progress, Receipt
from sidelight.emission.tracing import TRACING, ambient, bind, bound, outside
from sidelight.emission.waiting import Waiting

__all__ = [
    "EMITTER",
    "TRACING",
    "Closed",
    "Early",
    "Head",
    "JoinedReceipt",
    "Late",
    "Ledger",
    "Progress",
    "Receipt",
    "Waiting",
    "ambient",
    "bind",
    "bound",
    "known",
    "outside",
    "read",
]
