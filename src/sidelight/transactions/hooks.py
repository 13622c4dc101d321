"""The guard around the hooks that run inside a commit, a rollback or a statement of the caller.

A hook that raised there would end the caller's work for the sake of an event.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from sidelight.exceptions import InstrumentationError, TransactionError
from sidelight.host import is_interrupt

_MAX_CHAIN: Final = 100


def is_raised_by(kinds: Any, error: BaseException | None, handled: BaseException | None) -> bool:
    """Return whether an error is a driver's own, or has interrupted the handling of such a one.

    Args:
        kinds: the classes of the driver's errors.
        error: to look at, with what was handled when it arrived.
        handled: what the caller was handling before the call of the driver.
    """
    for _ in range(_MAX_CHAIN):
        if error is None or error is handled:
            break
        if isinstance(error, kinds):
            return True
        error = error.__context__
    return False


class Contained:
    """Keeps an error of a hook from the caller, whose work does not depend on the hook.

    Three kinds of errors pass: an interrupt, the `TransactionError` of a strict point, and the
    `InstrumentationError` of strict mode.
    """

    __slots__ = ("_failed",)

    def __init__(self, failed: Callable[[Exception], None]) -> None:
        """Guard a block.

        Args:
            failed: called with the error; counts each event that the hook may have lost.
        """
        self._failed = failed

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if not isinstance(error, Exception):
            return False
        if isinstance(error, TransactionError | InstrumentationError):
            return False
        if is_interrupt(error, ran="library"):
            return False
        self._failed(error)
        return True
