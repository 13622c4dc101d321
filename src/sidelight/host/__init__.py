"""The process that sidelight runs in: threads, clocks, interrupts, imports, OpenTelemetry.

All code that depends on the interpreter, or on private names of OpenTelemetry, is in this room. The
room knows nothing of records.
"""

from typing import TYPE_CHECKING

from sidelight.host.clock import (
    is_time_frozen,
    monotonic,
    perf_counter_ns,
    process_time_ns,
    read_cpu_clock,
)
from sidelight.host.guard import (
    Ran,
    guarded,
    is_interrupt,
    signal_handlers,
    traceback_of,
    without_frame,
)
from sidelight.host.imports import at_first_use, begin_use, imported, lazily, when_imported
from sidelight.host.log import log_detail, log_failure, log_warning
from sidelight.host.otel_api import (
    PLAIN_CONTEXT,
    SPAN_KEY,
    get_context,
    keeps_metrics,
    providers,
    reset_context,
    set_context,
    suppressed,
    with_span,
)
from sidelight.host.platform import (
    HAS_FILE_LOCKS,
    IN_MEMORY,
    IS_LINUX,
    host_name,
    is_directory,
    not_kept,
    state_directory,
    status_of,
)
from sidelight.host.threads import (
    PROCESS_MARK,
    Loop,
    allocate_lock,
    interrupt_soon,
    mark_process,
    sleep,
    start_new_thread,
    thread_cpu_clock,
)
from sidelight.host.turns import Turns

if TYPE_CHECKING:
    from sidelight.host.descriptor import (
        OPEN_FILES,
        Descriptor,
        close_lost,
        descriptors_of,
        fstat,
        identity,
        is_faked,
        keep_for_ever,
        require_files,
        socket_descriptor,
    )

__getattr__ = lazily(
    __name__,
    {
        "descriptor": (
            "OPEN_FILES Descriptor close_lost descriptors_of fstat identity"
            " is_faked keep_for_ever require_files socket_descriptor"
        ),
    },
)

__all__ = [
    "HAS_FILE_LOCKS",
    "IN_MEMORY",
    "IS_LINUX",
    "OPEN_FILES",
    "PLAIN_CONTEXT",
    "PROCESS_MARK",
    "SPAN_KEY",
    "Descriptor",
    "Loop",
    "Ran",
    "Turns",
    "allocate_lock",
    "at_first_use",
    "begin_use",
    "close_lost",
    "descriptors_of",
    "fstat",
    "get_context",
    "guarded",
    "host_name",
    "identity",
    "imported",
    "interrupt_soon",
    "is_directory",
    "is_faked",
    "is_interrupt",
    "is_time_frozen",
    "keep_for_ever",
    "keeps_metrics",
    "lazily",
    "log_detail",
    "log_failure",
    "log_warning",
    "mark_process",
    "monotonic",
    "not_kept",
    "perf_counter_ns",
    "process_time_ns",
    "providers",
    "read_cpu_clock",
    "require_files",
    "reset_context",
    "set_context",
    "signal_handlers",
    "sleep",
    "socket_descriptor",
    "start_new_thread",
    "state_directory",
    "status_of",
    "suppressed",
    "thread_cpu_clock",
    "traceback_of",
    "when_imported",
    "with_span",
    "without_frame",
]
