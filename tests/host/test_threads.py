"""The relay's threads: begun, ended and begun again; gone while the process forks."""

import contextlib
import itertools
import os
import threading
import time
from pathlib import Path

import pytest
from tests.support.programs import wait_until

import sidelight
from sidelight.host.threads import Loop, allocate_lock
from sidelight.runtime import forks, process

TASKS = Path("/proc/self/task")


def ours():
    """The system's names of the threads that sidelight runs."""
    names = []
    for task in TASKS.iterdir():
        with contextlib.suppress(OSError):  # the thread has ended meanwhile
            names.append((task / "comm").read_text().strip())
    return sorted(name for name in names if name.startswith("sidelight"))


@pytest.fixture
def loop():
    """Counts for as long as it may."""
    wait_until(lambda: ours() == [])  # a relay of the test before may take its time to end
    counted = itertools.count()

    def run():
        while not loop.halting:
            loop.counted = next(counted)
            time.sleep(0.0005)

    loop = Loop("sidelight-test", run)
    loop.counted = -1
    yield loop
    loop.halt()
    assert loop.join(time.monotonic() + 10)


def goes_on(loop):
    before = loop.counted
    wait_until(lambda: loop.counted > before + 1)


def test_it_runs_until_it_is_halted(loop):
    loop.start()
    goes_on(loop)
    assert ours() == ["sidelight-test"]
    loop.halt()
    assert loop.join(time.monotonic() + 10)
    assert ours() == []


def test_it_is_named(loop):
    loop.start()
    goes_on(loop)
    assert "sidelight-test" in {thread.name for thread in threading.enumerate()}


def test_it_begins_again(loop):
    for _ in range(50):
        loop.start()
        goes_on(loop)
        loop.halt()
        assert loop.join(time.monotonic() + 10)


def test_a_halt_that_is_taken_back_at_any_moment_leaves_one_thread(loop):
    loop.start()
    for _ in range(500):
        loop.halt()
        loop.start()
    goes_on(loop)
    wait_until(lambda: ours() == ["sidelight-test"])


def test_one_that_does_not_end_in_time_goes_on(loop):
    """It was inside its library when it was halted, and is needed again when it returns."""
    inside = allocate_lock()
    inside.acquire()
    returned = []

    def run():
        if not returned:
            inside.acquire()
            returned.append(True)
        while not stuck.halting:
            time.sleep(0.0005)

    stuck = Loop("sidelight-test", run)
    stuck.start()
    stuck.halt()
    assert not stuck.join(time.monotonic() + 0.05)
    stuck.start()
    inside.release()
    wait_until(lambda: returned)
    running = ours()
    stuck.halt()
    assert stuck.join(time.monotonic() + 10)
    assert running == ["sidelight-test"]


def test_before_a_fork_they_end_and_after_it_they_go_on(tmp_path):
    sidelight.configure(f"sqlite:///{tmp_path / 'events.db'}")
    try:
        wait_until(lambda: ours() == ["sidelight-house", "sidelight-store"])
        forks._before()
        assert ours() == []
        forks._after_in_parent()
        wait_until(lambda: ours() == ["sidelight-house", "sidelight-store"])
        sidelight.emit("after", artifact_id="a")
        assert sidelight.flush()
    finally:
        process.RUNTIME.close(5.0)
    wait_until(lambda: ours() == [])


def test_a_child_that_is_forked_meanwhile_has_none(tmp_path):
    sidelight.configure(f"sqlite:///{tmp_path / 'events.db'}")
    try:
        child = os.fork()
        if child == 0:
            os._exit(len(ours()))
        assert os.waitpid(child, 0)[1] == 0
    finally:
        process.RUNTIME.close(5.0)


def test_receipts_of_a_new_spool_know_nothing_of_the_old_one(tmp_path):
    """Positions in two spools cannot be compared."""
    sidelight.configure(f"sqlite:///{tmp_path / 'a.db'}")
    try:
        for number in range(100):
            sidelight.emit("before", artifact_id=number)
        assert sidelight.flush()
        sidelight.configure(f"sqlite:///{tmp_path / 'b.db'}", relay="external")
        assert sidelight.emit("after", artifact_id="a").state == "spooled"
    finally:
        process.RUNTIME.close(5.0)
