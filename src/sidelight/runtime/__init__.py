"""Opens, forks, ends: the only process-wide state.

`process` opens the spool at the first emission and the relay beside it; `forks` and the end of the
process close them.
"""

from typing import TYPE_CHECKING

from sidelight.host import lazily
from sidelight.runtime.forks import register_hooks
from sidelight.runtime.process import RUNTIME, configure, flush

if TYPE_CHECKING:
    from sidelight.runtime.outboxes import outboxes_of
    from sidelight.runtime.sinks import sinks_of

__all__ = ["RUNTIME", "configure", "flush", "outboxes_of", "sinks_of"]

register_hooks()

__getattr__ = lazily(
    __name__,
    {
        "outboxes": "outboxes_of",
        "sinks": "sinks_of",
    },
)
