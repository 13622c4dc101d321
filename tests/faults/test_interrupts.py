"""Row 14: exceptions that arrive from outside, at any moment."""

import json
import os
import random
import subprocess
import sys
import time

import pytest
from tests.support.emitting import Order
from tests.support.programs import running
from tests.support.stepping import FIRST_CALLS

from sidelight import Store

TIMES_FULL, TIMES_SHORT = 20_000, 400
FAULTS = {
    "signal": "errors of a signal handler, Ctrl-C",
    "thread": "PyThreadState_SetAsyncExc, no Exception",
    "limit": "PyThreadState_SetAsyncExc, an Exception",
}


@pytest.mark.parametrize("by", FAULTS)
def test_an_exception_in_the_middle_of_a_call(by, store, full, seed, progress, settled):
    """The exception reaches the caller. A call that returned anyway is recorded."""
    times = TIMES_FULL if full else TIMES_SHORT
    order = Order(calls=times, prelude=f"by = {by!r}", seed=seed)
    with running(store, order=order, command=("-m", "tests.support.interrupted")) as program:
        while program.process.poll() is None:
            progress(f"{program.calls} calls have returned, between {times} interruptions in all")
            time.sleep(0.1)
        assert program.end() == 0, program.told()
    *complaints, told = program.told().splitlines()
    told = json.loads(told)
    assert told["wrong"] == [], complaints
    settled(14, FAULTS[by], store, program, injected=times, budget=False)
    assert told["inside"] > times // 20


@pytest.mark.parametrize("kind", FIRST_CALLS)
def test_an_exception_in_the_first_call_of_a_process(kind, store, tmp_path, full):
    """It reaches the caller once. The next emission is delivered, and `flush()` is True."""
    every = 3 if full else 41
    first = random.randrange(every)
    ran = subprocess.run(
        [sys.executable, "-m", "tests.support.stepping", kind, str(first), str(every)],
        env={**os.environ, "SIDELIGHT_STORE": store, "SIDELIGHT_SPOOL": str(tmp_path / "spool")},
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(ran.stdout)
    assert (told["wrong"], ran.stderr) == ([], "")
    assert told["steps"] > 500
    with Store(store) as events:
        delivered = {event.artifact_id for event in events.events()}
    assert {str(2 * step + 1) for step in range(first, told["steps"] + 1, every)} <= delivered
