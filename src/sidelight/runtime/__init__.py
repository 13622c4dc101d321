"""The process-wide state: opened at the first emission, carried over a fork, closed at the end.

`configure`, or else the first emission, opens the spool and starts the relay in the background. A
fork and the end of the process close them.
"""

from typing import TYPE_CHECKING

from sidelight.host import lazily

if TYPE_CHECKING:
    from sidelight.runtime.applying import restore
    from sidelight.runtime.configuration import configure, flush
    from sidelight.runtime.forks import RUNTIME
    from sidelight.runtime.measuring import observe_stored
    from sidelight.runtime.outboxes import outboxes_of
    from sidelight.runtime.sinks import require_stream_client, sinks_of
    from sidelight.runtime.writer import writer_meta

__all__ = [
    "RUNTIME",
    "configure",
    "flush",
    "observe_stored",
    "outboxes_of",
    "require_stream_client",
    "restore",
    "sinks_of",
    "writer_meta",
]

__getattr__ = lazily(
    __name__,
    {
        "applying": "restore",
        "configuration": "configure flush",
        "forks": "RUNTIME",
        "measuring": "observe_stored",
        "outboxes": "outboxes_of",
        "writer": "writer_meta",
        "sinks": "require_stream_client sinks_of",
    },
)
