"""The relay's threads start, end and start again, and none runs while the process forks."""

import ctypes
import itertools
import threading
import time

import pytest
from tests.support.children import in_a_forked_child, sidelight_threads
from tests.support.platforms import needs_spool_files
from tests.support.programs import wait_until

import sidelight
from sidelight.host.threads import Loop, allocate_lock, start_new_thread
from sidelight.runtime import forks, process


@pytest.fixture
def loop():
    """A loop that counts until it is halted."""
    wait_until(lambda: sidelight_threads() == [])  # a relay of an earlier test may still be ending
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
    assert sidelight_threads() == ["sidelight-test"]
    loop.halt()
    assert loop.join(time.monotonic() + 10)
    assert sidelight_threads() == []


def test_it_is_named(loop):
    loop.start()
    goes_on(loop)
    assert "sidelight-test" in {thread.name for thread in threading.enumerate()}


def test_it_starts_again(loop):
    for _ in range(50):
        loop.start()
        goes_on(loop)
        loop.halt()
        assert loop.join(time.monotonic() + 10)


def test_a_start_at_any_moment_after_a_halt_leaves_one_thread(loop):
    loop.start()
    for _ in range(500):
        loop.halt()
        loop.start()
    goes_on(loop)
    wait_until(lambda: sidelight_threads() == ["sidelight-test"])


def test_a_thread_that_does_not_end_in_time_runs_on_after_a_start(loop):
    """The thread is inside a library at the halt, and is started again before it returns."""
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
    running = sidelight_threads()
    stuck.halt()
    assert stuck.join(time.monotonic() + 10)
    assert running == ["sidelight-test"]


class Limit(Exception):
    """What a job queue aims at a thread."""


def test_an_exception_that_is_aimed_at_the_starter_of_a_thread_arrives_there_once():
    """Python 3.11 finds the new thread first, as long as that has not run."""
    arrived, target = 0, ctypes.c_ulong(threading.get_ident())
    for number in range(300):
        try:
            start_new_thread(threading.get_ident)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(target, ctypes.py_object(Limit))
            until = time.monotonic() + 60
            while time.monotonic() < until:
                time.sleep(0.0001)
        except Limit:
            arrived += 1
        assert arrived == number + 1


def test_they_end_before_a_fork_and_start_again_after_it(tmp_path):
    sidelight.configure(f"sqlite:///{tmp_path / 'events.db'}")
    try:
        wait_until(lambda: sidelight_threads() == ["sidelight-house", "sidelight-store"])
        forks._before()
        assert sidelight_threads() == []
        forks._after_in_parent()
        wait_until(lambda: sidelight_threads() == ["sidelight-house", "sidelight-store"])
        sidelight.emit("after", artifact_id="a")
        assert sidelight.flush()
    finally:
        process.RUNTIME.close(5.0)
    wait_until(lambda: sidelight_threads() == [])


def have_no_threads():
    assert sidelight_threads() == []


def test_a_forked_child_has_none(tmp_path):
    sidelight.configure(f"sqlite:///{tmp_path / 'events.db'}")
    try:
        wait_until(lambda: sidelight_threads() != [])
        in_a_forked_child(have_no_threads)
    finally:
        process.RUNTIME.close(5.0)


@needs_spool_files
def test_the_watermark_of_an_old_spool_does_not_count_for_a_new_one(tmp_path):
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
