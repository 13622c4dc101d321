"""What the host process lends: real threads, its interrupts, and OpenTelemetry's private names.

Nothing here knows of records. Whatever depends on the interpreter or on underscore names of
OpenTelemetry is in this room.
"""

from sidelight.host.guard import from_outside
from sidelight.host.lazy import lazily
from sidelight.host.otel_api import (
    PLAIN_CONTEXT,
    SPAN_KEY,
    get_context,
    providers,
    reset_context,
    set_context,
    suppressed,
    with_span,
)
from sidelight.host.threads import Loop, allocate_lock, sleep, start_new_thread

__all__ = [
    "PLAIN_CONTEXT",
    "SPAN_KEY",
    "Loop",
    "allocate_lock",
    "from_outside",
    "get_context",
    "lazily",
    "providers",
    "reset_context",
    "set_context",
    "sleep",
    "start_new_thread",
    "suppressed",
    "with_span",
]
