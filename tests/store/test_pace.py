"""How much is written at once follows from how long it takes."""

import contextlib
import time

import pytest
from tests.support.stored import NOON, record, sqlite

from sidelight import Store
from sidelight.store import batch_size
from sidelight.store.batch_size import BatchSizer
from sidelight.store.sink import StoreSink


@pytest.fixture
def clock(monkeypatch):
    """A function that lets time pass."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def wait(seconds):
        now[0] += seconds

    return wait


def sizes(paced, count, work):
    taken = []
    for piece in paced.split(range(count)):
        taken.append(len(piece))
        with contextlib.suppress(ZeroDivisionError), paced:
            work(len(piece))
    return taken


def test_pieces_are_all_there_is_and_of_nothing_one(clock):
    paced = BatchSizer(1.0)
    assert [list(piece) for piece in paced.split(range(5))] == [[0, 1, 2, 3, 4]]
    assert [list(piece) for piece in paced.split([])] == [[]]
    assert sum(sizes(paced, 98_765, lambda n: clock(n / 5_000))) == 98_765


def test_they_grow_while_they_are_soon_done(clock):
    paced = BatchSizer(1.0)
    assert sizes(paced, 40_000, lambda _: clock(0.1)) == [2000, 4000, 8000, 10_000, 10_000, 6000]
    assert sizes(paced, 10, lambda _: clock(0.1)) == [10]


def test_they_become_the_usual_when_they_take_long(clock):
    paced = BatchSizer(1.0)
    sizes(paced, 40_000, lambda _: clock(0.1))
    assert sizes(paced, 21_000, lambda _: clock(2)) == [10_000, 5000, 2500, 2000, 1500]


def test_what_is_not_finished_makes_the_next_small(clock):
    paced = BatchSizer(1.0)
    assert sizes(paced, 5_000, lambda _: 1 / 0) == [2000, 1000, 500, 250, 250, 250, 250, 250, 250]


def test_a_batch_is_stored_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(batch_size, "_USUAL", 7)
    sink = StoreSink(url := sqlite(tmp_path))
    sink.write([record(at=NOON + n) for n in range(30)], {})
    sink.close()
    with Store(url) as opened:
        assert len({event.recorded_ns for event in opened.events()}) > 1
        assert opened.size() == 30
