"""A signal from another thread that a task can await, in whichever event loop runs it."""

from __future__ import annotations

import sys
from typing import Any, Protocol


class Signal(Protocol):
    """Awaited in the loop that it was made in, and set from any thread, once."""

    def set(self) -> None:
        """Wake the task; RuntimeError where its loop has ended."""

    async def wait(self, seconds: float) -> None:
        """Wait until it is set, so many seconds at the longest."""


def signal() -> Signal | None:
    """A signal of the loop that runs this; None where there is none, or one of another kind.

    What a program has not imported itself it does not run; to import it would take too long.
    """
    trio, asyncio = sys.modules.get("trio"), sys.modules.get("asyncio")
    if trio is not None and trio.lowlevel.in_trio_task():  # maybe as a guest of asyncio
        return _OfTrio(trio)
    if asyncio is not None:
        try:
            return _OfAsyncio(asyncio.get_running_loop())
        except RuntimeError:
            return None
    return None


class _OfAsyncio:
    """Also that of uvloop. A cancellation while waiting passes through."""

    def __init__(self, loop: Any) -> None:
        self._loop = loop
        self._done = loop.create_future()

    def set(self) -> None:
        self._loop.call_soon_threadsafe(self._finish)

    async def wait(self, seconds: float) -> None:
        timer = self._loop.call_later(seconds, self._finish)
        try:
            await self._done
        finally:
            timer.cancel()

    def _finish(self) -> None:
        if not self._done.done():
            self._done.set_result(None)


class _OfTrio:
    """A cancellation comes with the next checkpoint of the program's own."""

    def __init__(self, trio: Any) -> None:
        self._trio = trio
        self._token = trio.lowlevel.current_trio_token()
        self._event = trio.Event()

    def set(self) -> None:
        self._token.run_sync_soon(self._event.set)

    async def wait(self, seconds: float) -> None:
        with self._trio.CancelScope(shield=True, deadline=self._trio.current_time() + seconds):
            await self._event.wait()
