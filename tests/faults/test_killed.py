"""Rows 1 and 2: processes killed at random moments, and relays between their steps."""

import os
import signal
import time
from pathlib import Path

import pytest
from tests.support.emitting import Order
from tests.support.programs import Program, Reports

from sidelight.settings import settle
from sidelight.spool import filesystem, hot_directory

THREADS = 3
HOT = ["/dev/shm"] if filesystem(Path("/dev/shm")) == "tmpfs" else []
ROUNDS_FULL, ROUNDS_SHORT = 1000, 16
AT_ONCE = 4  # rounds whose programs overlap: most of a round is the start of an interpreter


@pytest.mark.parametrize("hot", ["", *HOT], ids=lambda hot: hot or "disk")
def test_sigkill_at_random_moments(hot, store, full, randomness, progress, settled):
    """Each program has several threads. Half of the kills hit the whole process group."""
    rounds = ROUNDS_FULL if full else ROUNDS_SHORT if not hot else ROUNDS_SHORT // 2
    reports, programs = Reports(), []
    for number in range(rounds):
        progress(f"round {number} of {rounds}")
        order = Order(
            first=number * 10_000_000,
            threads=THREADS,
            pause=0.0005,
            configure={} if number % 2 else None,
            seed=number,
        )
        environment = {"SIDELIGHT_HOT": hot}
        programs.append(
            Program(store, order=order, environment=environment, start_new_session=True)
        )
        if len(programs) == AT_ONCE or number == rounds - 1:
            for program in programs:
                program.emit(1)
            for program in programs:
                time.sleep(randomness.random() * 0.05)
                if randomness.random() < 0.5:
                    program.kill()
                else:
                    os.killpg(program.process.pid, signal.SIGKILL)
                    program.end()
                reports = reports + program.reports
            programs.clear()
    title = f"SIGKILL at random moments{', hot segments' if hot else ''}"
    # Of a few rounds too many calls are the first of a process.
    settled(1, title, store, reports=reports, injected=rounds, budget=full)
    if hot:
        hot_directory(hot, settle(store).spool).rmdir()  # nothing is left there


FAILPOINTS = {
    "after the store's commit, before its cursor": ("spool.segment:Segment.advance", "before", 25),
    "after its cursor": ("spool.segment:Segment.advance", "after", 25),
    "before a segment is removed": ("spool.segment:Segment.remove", "before", 3),
    "after a segment is removed": ("spool.segment:Segment.remove", "after", 3),
    "in recovery": ("spool.scanner:Scanner.batch", "after", 25),
    "during adoption": ("spool.writer:Spool.adopt", "after", 1),
    "before the store's commit": ("store.sink:store_events", "after", 25),
    "in an allocation": ("spool.segment:populate", "after", 3),
}
"""The function, the side of its call on which the kill happens, and the latest such call."""


@pytest.mark.parametrize("point", FAILPOINTS)
def test_a_relay_killed_between_its_steps(point, store, full, randomness, progress, settled):
    """Each round kills the relay at a random call. The next round delivers the rest."""
    place, when, latest = FAILPOINTS[point]
    rounds, latest = (40, latest) if full else (2, -(-latest // 5))
    well = Program(store, order=Order(calls=10))
    well.end()
    reports, killed, enough = well.reports, 0, rounds // 3 or 1
    for number in range(1, 4 * rounds + 1):  # more rounds, where a busy relay makes fewer calls
        if number > rounds and killed >= enough:
            break
        progress(f"round {number} of {rounds}")
        prelude = f"arm('sidelight.{place}', {when!r}, {randomness.randint(1, latest)})"
        # Long enough for the relay to come up; its last steps are those of an orderly end.
        order = Order(first=number * 10_000_000, calls=1500, pause=0.0005, prelude=prelude)
        program = Program(store, order=order)
        code = program.end()
        assert code in {0, -signal.SIGKILL}, program.told()
        killed += code == -signal.SIGKILL
        reports = reports + program.reports
    assert killed >= enough, f"the failpoint was reached {killed} times"
    settled(2, f"relay killed {point}", store, reports=reports, injected=killed)
