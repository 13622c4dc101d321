"""Signals from a thread to a task, for the event loops of asyncio and trio."""

from __future__ import annotations

from typing import Any, Protocol

from sidelight.host import imported, is_time_frozen


class Signal(Protocol):
    """A one-shot event: created and awaited in one event loop, set from any thread."""

    def set(self) -> None:
        """Wake the task.

        Raises:
            RuntimeError: the event loop is closed.
        """

    async def wait(self, seconds: float) -> None:
        """Wait until the signal is set, at most ``seconds``."""


def signal() -> Signal | None:
    """Make a signal for the running event loop; None without one, or in one of another kind.

    While the time is frozen no event loop runs its timers, and the result is None as well. A
    library that the program has not imported runs no loop, and importing it would take too long.
    """
    if is_time_frozen():
        return None
    trio, asyncio = imported("trio"), imported("asyncio")
    if trio is not None and trio.lowlevel.in_trio_task():  # perhaps as a guest of asyncio
        return _TrioSignal(trio)
    if asyncio is not None:
        try:
            return _AsyncioSignal(asyncio.get_running_loop())
        except RuntimeError:
            return None
    return None


class _AsyncioSignal:
    """A signal for asyncio and uvloop; a cancellation while waiting is raised at once."""

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


class _TrioSignal:
    """A signal for trio; a cancellation while waiting is raised at the next checkpoint."""

    def __init__(self, trio: Any) -> None:
        self._trio = trio
        self._token = trio.lowlevel.current_trio_token()
        self._event = trio.Event()

    def set(self) -> None:
        self._token.run_sync_soon(self._event.set)

    async def wait(self, seconds: float) -> None:
        with self._trio.CancelScope(shield=True, deadline=self._trio.current_time() + seconds):
            await self._event.wait()
