"""Which loads keep a thread from waiting for the store: told by a table of clocks, without a load.

`Machine` puts clocks in the place of the process's. A step of its time is a share of a thread.
"""

import pytest
from tests.support.switching import all_at_once

from sidelight.emission import contention
from sidelight.emission.contention import Contention

MS = 1_000_000  # ns
CALLER, RELAY, OTHER = 1, 2, 3


class Machine:
    """A process of three threads; its relay looks at the clocks as a worker does."""

    def __init__(self, monkeypatch):
        self.now, self.cpu, self.thread = 0, {CALLER: 0, RELAY: 0, OTHER: 0}, CALLER
        replacements = {
            "perf_counter_ns": lambda: self.now,
            "process_time_ns": lambda: sum(self.cpu.values()),
            "read_cpu_clock": self.cpu.__getitem__,
            "thread_cpu_clock": lambda: self.thread,
        }
        for name, function in replacements.items():
            monkeypatch.setattr(contention, name, function)
        self.seen = Contention()
        self.seen.relay_clocks = lambda: [RELAY]
        self._look_at, self.late = 0, 0

    def run(self, ms, **shares):
        """Let time pass; ``shares`` is how much of it each thread computes."""
        for _ in range(10 * ms):
            self.now += MS // 10
            for thread, share in shares.items():
                self.cpu[globals()[thread.upper()]] += int(share * MS // 10)
            if self.now >= self._look_at + self.late:
                pause = self.seen.look(self.now - self._look_at)
                self._look_at = self.now + int(pause * 1e9)

    def may_wait(self, **kind):
        return not self.seen.delays_a_wait(in_a_loop=False, **kind)


@pytest.fixture
def machine(monkeypatch):
    machine = Machine(monkeypatch)
    machine.run(200)
    return machine


LATE = 6 * MS  # more than one switch interval

LOADS = {
    "nothing": ({}, 0, True),
    "the caller's own computing, which makes the relay late": ({"caller": 1.0}, LATE, True),
    "the relay's computing": ({"relay": 0.9}, 0, True),
    "a little of another thread": ({"other": 0.05}, 0, True),
    "another thread with the GIL": ({"other": 1.0}, LATE, False),
    "another thread beside the caller's computing": ({"other": 0.5, "caller": 0.5}, LATE, False),
    "threads without the GIL": ({"other": 1.9}, 0, True),
    "other processes, which make the relay late": ({}, LATE, False),
    "another thread, beside other processes": ({"other": 0.1}, LATE, False),
}


@pytest.mark.parametrize(("shares", "late", "may_wait"), LOADS.values(), ids=LOADS)
def test_a_steady_load(machine, shares, late, may_wait):
    machine.late = late
    machine.run(400, **shares)
    answers = set()
    for _ in range(200):  # whenever the relay has looked last
        machine.run(1, **shares)
        answers.add(machine.may_wait())
    assert answers == {may_wait}


@pytest.mark.parametrize("earlier", [200, 207, 213, 229, 246])
def test_a_load_is_seen_as_soon_as_it_has_computed_a_little(machine, earlier):
    machine.run(earlier)
    machine.run(9, other=1.0)
    assert not machine.may_wait()


@pytest.mark.parametrize(("shares", "late", "may_wait"), LOADS.values(), ids=LOADS)
def test_the_way_back_takes_a_tenth_of_a_second(machine, shares, late, may_wait):
    machine.late = late
    machine.run(1000, **shares)
    machine.late = 0
    machine.run(100)
    assert machine.may_wait()


def test_a_load_that_gives_the_gil_away_is_believed_only_while_it_lasts(machine):
    machine.run(500, other=1.0)
    assert machine.may_wait()
    machine.run(200)
    machine.run(20, other=1.0)
    assert not machine.may_wait()


def test_bursts_between_the_probes_are_no_proof_that_a_load_gives_way(machine):
    for _ in range(40):
        machine.late = LATE
        machine.run(30, other=1.0)
        assert not machine.may_wait()
        machine.late = 0
        machine.run(30)


def test_a_thread_that_waits_for_the_first_time_has_not_been_computing_beside_itself(machine):
    machine.thread = OTHER
    machine.run(9, other=1.0)
    assert machine.may_wait()


def test_after_a_late_wait_none_begins_for_a_while(machine):
    machine.seen.note_late(in_a_loop=False)
    assert not machine.may_wait()
    machine.run(100)
    assert machine.may_wait()


def test_the_tasks_of_a_loop_that_was_late_count_as_other_threads(machine):
    """The CPU clock of a thread cannot tell one task from another; a late wait does."""

    def may_await():
        return not machine.seen.delays_a_wait(in_a_loop=True)

    machine.run(100, caller=0.8)
    assert may_await()
    machine.seen.note_late(in_a_loop=True)
    machine.run(100, caller=0.8)
    assert not may_await()
    machine.run(100)
    assert may_await()


def test_threads_register_beside_each_other():
    seen, failed = Contention(), []

    def register(first):
        try:
            for clock in range(first, first + 3000):
                seen._register(clock)
        except RuntimeError as error:
            failed.append(error)

    all_at_once(register, range(0, 8000, 1000), every=1e-6)
    assert failed == []


def test_many_threads_that_wait_are_not_all_remembered(machine):
    for thread in range(10, 500):
        machine.cpu[thread] = 0
        machine.thread = thread
        assert machine.may_wait()
    assert len(machine.seen._callers) == 64
