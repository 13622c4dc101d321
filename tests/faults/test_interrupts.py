"""Row 14: exceptions that arrive from outside, at any moment."""

import json
import os
import random
import subprocess
import sys
import time

import pytest
from tests.support.balance import balance
from tests.support.emitting import Order
from tests.support.programs import running
from tests.support.stepping import FIRST_CALLS, Interrupt, Steps

import sidelight
from sidelight import Store
from sidelight.runtime import RUNTIME, forks

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
def test_an_exception_in_the_first_call_of_a_process(kind, store, tmp_path, full, row):
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
        delivered = [event.artifact_id for event in events.events()]
    later = [str(2 * step + 1) for step in range(first, told["steps"] + 1, every)]
    verdict = balance(later, delivered)
    row(14, f"exception in a first call, {kind}", injected=len(later), verdict=verdict)


def test_an_exception_in_the_hooks_of_a_fork(store, full, row):
    """Python would drop it there. It is raised after the fork, and the relay goes on."""
    sidelight.configure(store)
    every = 1 if full else 11
    step = random.randrange(every)
    emitted = []
    while True:
        steps, arrived = Steps(step), False
        try:
            arrived = steps.run(lambda: (forks._before(), forks._after_in_parent()))
            until = time.monotonic() + 20
            while steps.place and not arrived and time.monotonic() < until:
                time.sleep(0.001)
        except Interrupt:
            arrived = True
        if steps.place is None:
            break
        assert arrived, steps.place
        sidelight.emit("after", artifact_id=step)
        emitted.append(str(step))
        assert sidelight.flush(20), steps.place
        step += every
    RUNTIME.close(5)
    assert step > 50
    with Store(store) as events:
        stored = [event.artifact_id for event in events.events()]
    verdict = balance(emitted, stored)
    row(14, "exception in the hooks of a fork", injected=len(emitted), verdict=verdict)
