"""Row 14: exceptions that arrive from outside, at any moment."""

import json
import time

import pytest
from tests.support.emitting import Order
from tests.support.programs import running

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
