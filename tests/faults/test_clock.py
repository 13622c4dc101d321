"""Row 11: the wall clock steps an hour ahead and back while programs run."""

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import time

import pytest
from tests.support.emitting import Order
from tests.support.programs import (
    ROOT,
    all_arrive,
    caught_up,
    judge,
    nothing_left,
    running,
    wait_until,
)
from tests.support.shim import Shim

from sidelight.record.format import decode
from sidelight.spool.directory import segments_in
from sidelight.spool.header import PAGE
from sidelight.spool.scanner import Scanner
from sidelight.spool.segment import Segment

HOUR = 3600
DAY = 24 * HOUR


@pytest.fixture
def shim(tmp_path):
    return Shim(tmp_path)


def steps(full):
    """Return the offsets of the clock in seconds. Some of them cross midnight."""
    midnight = DAY - time.time() % DAY - HOUR / 2
    once = [0, HOUR, 0, -HOUR, 0, midnight, midnight + HOUR, midnight]
    return once * (20 if full else 1)


def doctor(store, shim):
    """Return the faults that the doctor finds at the present offset of the clock."""
    command = [sys.executable, "-m", "sidelight", "doctor", "--json", "--store", store]
    env = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "SIDELIGHT_"))}
    env |= {"PYTHONPATH": str(ROOT / "src"), **shim.environment}
    ran = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert not ran.stderr
    findings = map(json.loads, ran.stdout.splitlines())
    return [finding for finding in findings if finding["state"] == "wrong"]


def rows(tmp_path, query):
    with contextlib.closing(sqlite3.connect(tmp_path / "events.db")) as connection:
        return connection.execute(query).fetchall()


def test_the_clock_steps_while_programs_run(store, tmp_path, shim, full, progress, row):
    """A program in the past delivers the spool of one that was killed in the future."""
    wrong = steps(full)
    with running(store, order=Order(pause=0.001), environment=shim.environment) as program:
        program.emit(50)
        killed = []
        for number, seconds in enumerate(wrong):
            progress(f"step {number} of {len(wrong)}")
            shim.set_clock(seconds)
            program.emit(50)
            if seconds == HOUR:
                order = Order(first=(number + 1) * 1_000_000, configure={"relay": "external"})
                with running(store, order=order, environment=shim.environment) as other:
                    other.emit(50)
                    other.kill()
                killed.append(other)
                program.emit(50)
                shim.set_clock(-HOUR)
                all_arrive(store, *killed)
        shim.set_clock(-HOUR)  # of everything that is there the clock knows nothing
        program.emit(10)
        all_arrive(store, program, *killed)
        findings = doctor(store, shim)
        told = {finding["check"] for finding in findings} - {"budget"}  # a busy machine
        assert told == {"clock"}, findings
        assert program.stop() == 0, program.told()
    shim.set_clock(0)
    verdict = judge(store, program, *killed)
    row(11, "clock stepped an hour", injected=len(wrong), verdict=verdict)
    ((shortest, longest),) = rows(tmp_path, "SELECT min(duration), max(duration) FROM events")
    assert 0 <= shortest <= longest < 10e9
    ((days,),) = rows(tmp_path, "SELECT count(DISTINCT day) FROM event_counts")
    assert days in {2, 3}  # three within the first hour of a day
    assert shim.met("open") == 0
    nothing_left(store)


def test_a_segment_keeps_the_order_of_the_calls(tmp_path, shim, full, settled):
    """The order does not depend on the times, and the ids are unique."""
    store, spool = f"sqlite:///{tmp_path / 'events.db'}", tmp_path / "spool"
    order = Order(pause=0.001, configure={"relay": "external"})
    with running(store, spool, order=order, environment=shim.environment) as program:
        for seconds in steps(full):
            shim.set_clock(seconds)
            program.emit(50)
        program.kill()
    found, times = [], []
    for path in segments_in(spool):
        with contextlib.closing(Segment.inspect(path)) as segment:
            segment.sealed = True
            records = map(decode, Scanner(segment, PAGE).batch(1_000_000).payloads)
            moments = [moment for static, moment in records if static.type is not None]
            numbers = [moment.attributes["n"] for moment in moments]
            assert numbers == sorted(numbers)
            found += numbers
            times += [moment.time for moment in moments]
    assert sorted(found) == list(range(len(found)))
    assert times != sorted(times)
    settled(11, "clock stepped, order kept", store, program, injected=len(steps(full)), spool=spool)


def test_who_follows_misses_nothing(store, tmp_path, shim, settled):
    """`sidelight tail` goes on after the clock was set back."""
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", "sidelight", "tail", "-n", "0", "--json", "--store", store]
    with running(store, order=Order(pause=0.001), environment=shim.environment) as program:
        program.emit(10)
        caught_up(store, program)
        output = tmp_path / "followed"
        with (
            output.open("wb") as file,
            subprocess.Popen(command, env=env, stdout=file) as following,
        ):
            try:
                wait_until(lambda: output.read_bytes())
                for seconds in (HOUR, -HOUR):
                    shim.set_clock(seconds)
                    before = program.calls
                    program.emit(50)
                    wait_until(lambda n=before + 40: f'"n":{n}' in output.read_text())
            finally:
                following.terminate()
        assert program.stop() == 0, program.told()
    settled(11, "clock stepped while `tail` follows", store, program, injected=2)
