"""The guard around the hooks that run inside a commit, a rollback or a statement of the caller.

A hook that raised there would end the caller's work for the sake of an event.
"""

from __future__ import annotations

from collections.abc import Callable

from sidelight.exceptions import InstrumentationError, TransactionError
from sidelight.host import is_interrupt


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
