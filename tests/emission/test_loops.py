"""A wait for the store lets other tasks run in asyncio and trio, and greenlets in gevent."""

import asyncio
import subprocess
import sys
import textwrap
import threading
import time

import pytest
import trio

from sidelight.emission.event_loops import signal
from sidelight.emission.waiting import Watermark

FAR = (1, 0)
LONG = 20.0  # seconds; a wait that ends earlier was woken


@pytest.fixture
def progress():
    progress = Watermark()
    progress.store_answers = True
    progress.contention.delays_a_wait = lambda **_: False  # whatever else this machine does
    return progress


def advance_soon(progress):
    """Advance from another thread, as the relay does."""
    threading.Timer(0.05, progress.advance, [FAR]).start()


def python(code):
    """Run code in another process, because gevent patches the whole process."""
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.split()


def test_there_is_no_signal_without_a_loop():
    assert signal() is None


async def test_in_asyncio(progress):
    advance_soon(progress)
    ticks = asyncio.create_task(asyncio.sleep(0.01))
    assert await progress.arrive(FAR, LONG)
    assert ticks.done()


def test_in_trio(progress):
    async def main():
        ticks = []

        async def tick():
            await trio.sleep(0.01)
            ticks.append(True)

        advance_soon(progress)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tick)
            assert await progress.arrive(FAR, LONG)
            assert ticks

    trio.run(main)


def test_in_trio_it_ends_in_time(progress):
    async def main():
        begun = time.monotonic()
        assert not await progress.arrive(FAR, 0.02)
        assert 0.015 < time.monotonic() - begun < LONG / 2

    trio.run(main)


def test_a_cancellation_in_trio_comes_with_the_programs_own_checkpoint(progress):
    async def main():
        with trio.CancelScope() as scope:
            scope.cancel()
            assert not await progress.arrive(FAR, 0.02)
            assert not scope.cancelled_caught
            await trio.lowlevel.checkpoint()
        assert scope.cancelled_caught

    trio.run(main)


def test_a_loop_of_trio_that_has_ended_does_not_hurt_the_relay(progress):
    made = []

    async def main():
        made.append(signal())

    trio.run(main)
    progress._waiters.append((FAR, made[0].set))
    progress.advance(FAR)
    assert not progress._waiters


def test_trio_as_a_guest_of_asyncio(progress):
    """The task that waits is trio's, though the thread runs a loop of asyncio's."""

    async def of_trio():
        advance_soon(progress)
        return await progress.arrive(FAR, LONG)

    async def main():
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        trio.lowlevel.start_guest_run(
            of_trio,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=done.set_result,
        )
        return (await done).unwrap()

    assert asyncio.run(main())


def test_what_a_program_does_not_use_is_not_imported():
    """Under trio alone, asyncio would be imported on the caller's time."""
    assert python(
        """
        import sys, trio, sidelight
        from sidelight.emission.waiting import Watermark
        progress = Watermark()
        progress.store_answers = True
        trio.run(progress.arrive, (1, 0), 0.001)

        @sidelight.emits("done", mode="awaited")
        async def work(): pass
        trio.run(work)
        print("asyncio" in sys.modules)
        """
    ) == ["False"]


@pytest.mark.parametrize("when", ["before", "after"])
def test_in_gevents_hub(when):
    """A wait in one greenlet lets the others run, and the relay's thread ends it."""
    patch = "from gevent import monkey; monkey.patch_all()\n"
    code = """
    from sidelight.emission.waiting import Watermark
    from sidelight.host.threads import sleep, start_new_thread
    {after}
    import gevent, time
    progress = Watermark()
    progress.store_answers = True
    ticks = []
    def tick():
        while True:
            gevent.sleep(0.002)
            ticks.append(True)
    def advance():
        while len(ticks) < 6 and time.monotonic() < begun + 15:
            sleep(0.01)
        progress.advance((1, 0))
    begun = time.monotonic()
    gevent.spawn(tick)
    start_new_thread(advance)
    print(progress.wait((1, 0), 30.0), len(ticks) > 5)
    progress.position = (0, 0)
    print(progress.wait((1, 0), 0.02))
    """
    code = textwrap.dedent(code).format(after=patch if when == "after" else "")
    assert python(patch * (when == "before") + code) == ["True", "True", "False"]


def test_beside_gevent_the_relay_is_in_threads(tmp_path):
    """It goes on while the hub is blocked: by a greenlet that computes, or waits in C."""
    assert python(
        f"""
        from gevent import monkey
        monkey.patch_all()
        import contextlib, time, sidelight
        from sidelight.host.threads import sleep
        sidelight.configure("sqlite:///{tmp_path}/events.db")
        for n in range(100):
            sidelight.emit("n", artifact_id=n)
        found, until = 0, time.monotonic() + 20
        while found < 100 and time.monotonic() < until:
            sleep(0.05)  # the hub's own thread
            with contextlib.suppress(sidelight.SidelightError):
                with sidelight.Store("sqlite:///{tmp_path}/events.db") as store:
                    found = store.size()
        print(found)
        """
    ) == ["100"]
