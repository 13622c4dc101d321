"""The log of sidelight: the logger "sidelight", whose handlers belong to the application.

sidelight logs in the threads of its relay, and in those of callers. A handler that raises must end
neither a thread nor a call. So what a handler raises is dropped, and an interrupt passes.

A handler that hangs holds up the thread that logs: no other code can end it.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from sidelight.host.guard import is_interrupt

_LOGGER: Final = logging.getLogger("sidelight")
_CALLER: Final = 3  # frames above `Logger.log`: the place that is shown as that of the message


def log_warning(message: str, *arguments: object) -> None:
    """Log a warning; see `logging.Logger.warning` for the arguments."""
    _log(logging.WARNING, message, arguments)


def log_detail(message: str, *arguments: object) -> None:
    """Log what only a search for a defect needs."""
    _log(logging.DEBUG, message, arguments)


def log_failure(message: str, *arguments: object) -> None:
    """Log an error with the traceback of the exception that is being handled."""
    _log(logging.ERROR, message, arguments, exc_info=True)


def _log(level: int, message: str, arguments: tuple[object, ...], **options: Any) -> None:
    try:
        _LOGGER.log(level, message, *arguments, stacklevel=_CALLER, **options)
    except BaseException as error:
        if is_interrupt(error, ran="library"):
            raise
