"""What points cost: one that is never called, one that is called, one whose function is gone.

Bytes are counted, and function calls of the ledger, so that a busy machine changes nothing.
"""

import gc
import itertools
import sys
import tracemalloc

import pytest
from tests.support.platforms import needs_spool_files

import sidelight
from sidelight import arg, emits
from sidelight.emission.emitter import EMITTER, Emitter
from sidelight.emission.ledger import Ledger

MANY = 100
numbers = itertools.count()


def made(number):
    def function(x):
        return x

    function.__name__ = function.__qualname__ = f"function_{number}"
    return emits("done", artifact_id=arg.x)(function)


def bytes_of(make):
    """The memory that ``make`` keeps, in bytes for each of many.

    The lesser of two times counts, because a table of all points doubles its size now and then.
    """
    return min(bytes_of_many(make) for _ in range(2))


def bytes_of_many(make):
    kept = [make(next(numbers)) for _ in range(20)]  # what all points share
    gc.collect()
    tracemalloc.start()
    try:
        kept += [make(next(numbers)) for _ in range(MANY)]
        gc.collect()
        return tracemalloc.get_traced_memory()[0] / MANY
    finally:
        tracemalloc.stop()


def never_called(number):
    return made(number)


def called(number):
    function = made(number)
    function("a1")
    return function


def called_and_gone(number):
    made(number)("a1")


@needs_spool_files
@pytest.mark.parametrize(
    ("make", "most", "before"),
    [
        (never_called, 6_000, 0),
        (never_called, 6_000, 5_400),  # a table of all points grows at 5,461
        (called, 40_000, 0),
        (called_and_gone, 20_000, 0),
    ],
)
def test_a_point_keeps_little_memory(make, most, before, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "IPython", raising=False)  # beside it code is written at once
    sidelight.configure(f"sqlite:///{tmp_path / 'events.db'}", relay="external", otlp=False)
    while len(EMITTER.costs) < before:
        made(next(numbers))
    assert bytes_of(make) < most


class Nowhere:
    """A spool that keeps nothing."""

    def append(self, frame):
        pass

    append_beyond_limit = append

    def position(self):
        return 1, 1


def calls_of_an_unhurried_write(points):
    """Function calls of writing the ledger of many points, one of which was called."""
    emitter, spool = Emitter(), Nowhere()
    ledger = Ledger(emitter)
    for number in range(points):
        emitter.costs_of(f"shop.services:function_{number}").add(2_000)
    ledger.write(spool)
    ledger.write(spool, whole=False)  # looks once more at those that have changed before
    counted = 0

    def profile(frame, event, argument):
        nonlocal counted
        counted += event in {"call", "c_call"}

    for number in range(10):
        emitter.costs[f"shop.services:function_{number}"].add(2_000)
        sys.setprofile(profile)
        try:
            ledger.write(spool, whole=False)
        finally:
            sys.setprofile(None)
    return counted / 10


def test_the_ledger_costs_by_what_has_changed():
    few, many = calls_of_an_unhurried_write(1_000), calls_of_an_unhurried_write(6_000)
    assert many < 1.2 * few
