"""The bounded wait of an awaited emission, as the wrappers of one point do it."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Final

from sidelight.emission.emitter import EMITTER, MARGIN

if TYPE_CHECKING:
    from sidelight.emission.light_span import LightSpan
    from sidelight.record import Costs
    from sidelight.spool import Position

#: A cancellation that is taken back leaves nothing behind in the task (see `Task.uncancel`).
_UNCANCEL_IS_WHOLE: Final = sys.version_info >= (3, 13)
_clock: Final = time.perf_counter_ns


class Waiting:
    """The waits of one point; their time is counted with the emission's own.

    A wait raises only what came from outside: a cancellation, Ctrl-C, a signal handler's error.
    """

    def __init__(self, path: str, costs: Costs) -> None:
        self._path = path
        self._costs = costs

    def names(self) -> dict[str, Any]:
        """The waits, by the names that generated code has for them."""
        return {
            "_wait": self.wait,
            "_wait_counted": self.wait_counted,
            "_arrive": self.arrive,
            "_arrive_last": self.arrive_last,
        }

    def wait(self, position: Position, spent: int) -> None:
        """Block; ``spent`` (ns) of the deadline is gone."""
        try:
            EMITTER.progress.wait(position, _remaining(spent))
        except Exception as problem:  # noqa: BLE001  # the guard
            EMITTER.lost("store not awaited", self._path, problem, looking=False)

    def wait_counted(self, span: LightSpan, position: Position) -> None:
        """Block, in a wrapper that would rather have awaited."""
        begun = _clock()
        self.wait(position, span.cost)
        self._count(span, begun)

    async def arrive(self, span: LightSpan, position: Position) -> None:
        """Await, at the start of a call."""
        begun = _clock()
        try:
            await EMITTER.progress.arrive(position, _remaining(span.cost))
        except Exception as problem:  # noqa: BLE001  # the guard
            EMITTER.lost("store not awaited", self._path, problem, looking=False)
        self._count(span, begun)

    async def arrive_last(self, span: LightSpan, position: Position) -> None:
        """Await, though the work is done.

        Where it can be, a cancellation is handed on to the caller's next await, so that it does not
        take the work's outcome away. Before 3.13 `asyncio.timeout` would not take such a one back.
        """
        try:
            await self.arrive(span, position)
        except BaseException as cancelled:
            asyncio = sys.modules.get("asyncio")  # as `loops` has it
            if asyncio is None or not isinstance(cancelled, asyncio.CancelledError):
                raise
            task = asyncio.current_task()
            if task is None or not _UNCANCEL_IS_WHOLE:
                raise
            task.uncancel()
            task.cancel(*cancelled.args)

    def _count(self, span: LightSpan, begun: int) -> None:
        self._costs.add(span.cost + _clock() - begun)
        span.cost = 0


def _remaining(spent: int) -> float:
    return EMITTER.deadline - MARGIN - spent / 1e9
