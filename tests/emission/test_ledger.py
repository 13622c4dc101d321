"""Losses and costs: counted exactly, and delivered whole."""

import sys
import threading

import pytest

from sidelight.emission.emitter import Emitter
from sidelight.record import BUDGET_NS, Costs

THREADS, TIMES = 4, 30_000


@pytest.fixture
def impatient():
    """Threads take turns as often as the interpreter allows."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def in_threads(function):
    threads = [
        threading.Thread(target=lambda: [function() for _ in range(TIMES)]) for _ in range(THREADS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_losses_of_several_threads_are_counted_exactly(impatient):
    emitter = Emitter()
    in_threads(lambda: emitter.count("made up", "problem"))
    assert emitter.losses == {"made up": THREADS * TIMES}


def test_costs_of_several_threads_are_counted_exactly(impatient):
    costs = Costs()

    def add():
        costs.add(1_000)
        costs.add(BUDGET_NS + 1)

    in_threads(add)
    counted = costs.snapshot()
    assert (counted["count"], counted["over"]) == (2 * THREADS * TIMES, THREADS * TIMES)
