"""Row 14: tasks cancelled at each step, timeouts, and event loops that close too early."""

import asyncio
import gc
import itertools
import sqlite3

import pytest
from opentelemetry import trace
from tests.support.emitting import KINDS
from tests.support.programs import Reports, judge
from tests.support.telemetry import configured

import sidelight
from sidelight import arg, emits

LAST_STEP = 60
numbers = itertools.count()


async def work(n, fails, trail):
    """Append each step to `trail`. The `finally` block awaits as well."""
    trail.append("begun")
    try:
        for _ in range(3):
            await asyncio.sleep(0)
        trail.append("done")
        if fails:
            raise ValueError(n)
        return n
    finally:
        await asyncio.sleep(0)
        trail.append("cleaned")


FIELDS = {"artifact_id": arg.n, "n": arg.n}
CALLS = {
    "scheduled async": emits("done", failure="failed", **FIELDS)(work),
    "awaited async": emits("done", failure="failed", mode="awaited", **FIELDS)(
        emits(start="begun", mode="awaited", artifact_id=arg.n)(work)
    ),
}


@pytest.fixture
def store(tmp_path):
    with configured(tmp_path):
        yield f"sqlite:///{tmp_path / 'events.db'}"


class Caller:
    """Makes calls, and reports those that were not cancelled."""

    def __init__(self):
        self.reports = Reports()

    async def call(self, kind, function, n, *, fails, trail):
        try:
            await function(n, fails, trail)
        except ValueError as error:
            assert error.args == (n,)
        finally:
            assert trace.get_current_span() is trace.INVALID_SPAN
        self.reports.take(n, 0, 0, KINDS.index(kind), 0, 0, b"")

    async def cancelled_at(self, step, kind, function, *, fails):
        """Cancel a call at a step, or never. Return whether it was cancelled, and its trail."""
        trail = []
        call = self.call(kind, function, next(numbers), fails=fails, trail=trail)
        task = asyncio.create_task(call)
        if step is not None:
            for _ in range(step):
                await asyncio.sleep(0)
            task.cancel()
        done, _ = await asyncio.wait({task}, timeout=120.0)
        assert done, "it hangs"
        if not task.cancelled():
            task.result()
        return task.cancelled(), tuple(trail)


@pytest.mark.parametrize("kind", CALLS)
async def test_cancelled_at_each_step(kind, store, full, row):
    """The call ends in a way that is possible without the decorator."""
    rounds = 100 if full else 4
    caller = Caller()
    for fails in (False, True):
        alone = Caller()
        possible = {
            await alone.cancelled_at(step, kind, work, fails=fails) for step in range(LAST_STEP)
        }
        possible |= {(True, trail) for cancelled, trail in possible if not cancelled}
        for _ in range(rounds):
            for step in (*range(LAST_STEP), None):
                assert await caller.cancelled_at(step, kind, CALLS[kind], fails=fails) in possible
    assert sidelight.flush()
    injected, verdict = 2 * rounds * LAST_STEP, judge(store, reports=caller.reports)
    row(14, f"{kind}, cancelled", injected=injected, verdict=verdict, budget=False)
    assert 2 * rounds <= verdict.acknowledged <= injected  # one is cancelled before it has begun


@pytest.mark.parametrize("kind", CALLS)
async def test_timeouts(kind, store, full, randomness, row):
    """A timeout raises `TimeoutError` or nothing. No cancellation is left in the task."""
    rounds, late = 3000 if full else 200, 0
    caller = Caller()
    for number in range(rounds):
        call = caller.call(kind, CALLS[kind], next(numbers), fails=number % 2, trail=[])
        try:
            async with asyncio.timeout(10 ** randomness.uniform(-5, -1)):
                await call
        except TimeoutError:
            late += 1
        assert asyncio.current_task().cancelling() == 0
        await asyncio.sleep(0)  # no cancellation is left over
    assert sidelight.flush()
    verdict = judge(store, reports=caller.reports)
    row(14, f"{kind}, timed out", injected=late, verdict=verdict, budget=False)
    assert 0 < late < rounds


def test_event_loops_closed_too_early(store, tmp_path, full, caplog, row):
    """The loops close while calls await receipts of a locked store. The next loop works."""
    rounds = 20 if full else 3
    caller, cut_short = Caller(), 0

    async def pause(n, fails, trail):
        await asyncio.sleep(0)
        return n

    begun = emits(start="begun", mode="awaited", artifact_id=arg.n)
    function = emits("paused", mode="awaited", **FIELDS)(begun(pause))

    async def several():
        for _ in range(5):
            n = next(numbers)
            await caller.call("awaited async", function, n, fails=False, trail=[])

    asyncio.run(several())
    assert sidelight.flush()
    for _ in range(rounds):
        lock = sqlite3.connect(tmp_path / "events.db", isolation_level=None)
        lock.execute("BEGIN EXCLUSIVE")
        loop = asyncio.new_event_loop()
        tasks = [loop.create_task(several()) for _ in range(20)]
        loop.call_later(0.002, loop.stop)
        loop.run_forever()
        # Unless the relay is late (see Watermark): then nobody waits.
        cut_short += any(not task.done() for task in tasks)
        loop.close()
        lock.close()
        del tasks
        gc.collect()  # ends the coroutines of the closed loop
        asyncio.run(several())
        assert sidelight.flush()
        gc.collect()  # ends the other coroutines within this test
    verdict = judge(store, reports=caller.reports)
    row(14, "event loop closed", injected=cut_short, verdict=verdict, budget=False)
    assert cut_short > 0
    assert {record.name for record in caplog.records} <= {"asyncio"}  # of tasks left pending
