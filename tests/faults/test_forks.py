"""Row 12: processes that fork while sidelight's threads are at work, and pools of workers."""

import json
import subprocess
import sys

import pytest
from tests.support.emitting import Order
from tests.support.programs import deliver, judge, nothing_left, running


def forking(store, how, count, order):
    """Run a program that forks; answers it and what it measured."""
    command = ("-m", "tests.support.forking", how, str(count))
    with running(store, order=order, command=command) as program:
        assert program.end(600.0) == 0, program.told()
        told = [line for line in program.told().splitlines() if line.startswith("{")]
    return program, json.loads(told[-1]) if told else {}


def test_beside_a_busy_relay(store, full, row):
    """No child hangs in its own store, no id comes twice, and no fork takes long."""
    forks = 1500 if full else 100
    program, told = forking(store, "many", forks, Order(threads=2, pause=0.0005))
    deliver(store)
    assert told["failed"] == 0, "children that hang or fail"
    assert told["longest"] < 0.5 + told["twin"]
    longest = f"fork beside a busy relay, {told['longest'] * 1e3:.0f} ms at most"
    # A child's first calls are the slow ones: of so few, beside other tests, nothing can be said.
    row(12, longest, injected=forks, verdict=judge(store, program), budget=full)
    nothing_left(store)


def test_children_that_outlive_their_parent(store, full, settled):
    """A child writes to its own connection, after its parent closed the inherited one."""
    children = 20 if full else 3
    program, _ = forking(store, "outlived", children, Order())
    verdict = settled(12, "children outlive their parent", store, program, injected=children)
    assert verdict.acknowledged == 50 + 200 * children


def test_in_the_middle_of_the_imports(store, full, progress, settled):
    rounds, children = (20 if full else 2), 3
    programs = []
    for number in range(rounds):
        progress(f"round {number} of {rounds}")
        program, told = forking(store, "early", children, Order(first=1000 * number))
        assert told["failed"] == 0
        programs.append(program)
    settled(12, "fork after the first emission", store, *programs, injected=rounds * children)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_pools_of_short_lived_workers(method, store, full, settled):
    tasks = {"fork": (300, 15), "spawn": (60, 3)}[method][not full]
    program, _ = forking(store, f"pool_{method}", tasks, Order())
    verdict = settled(12, f"multiprocessing, {method}", store, program, injected=tasks)
    assert verdict.acknowledged == 50 + 10 * tasks


def test_what_waits_for_the_spool_is_not_taken_into_a_child():
    """Records that wait for the spool stay with the parent, which opens it during the fork."""
    code = """
import os
from sidelight.runtime import RUNTIME

RUNTIME.early.append(b"of the parent")
if not os.fork():
    os._exit(len(RUNTIME.early._frames))
_, status = os.wait()
assert os.waitstatus_to_exitcode(status) == 0, "the child has it too"
assert len(RUNTIME.early._frames) == 1
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
