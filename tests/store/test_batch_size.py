"""The size of a transaction follows from how long the ones before it took."""

import contextlib

import pytest
from tests.support.stored import NOON, exact, record, sqlite, store

from sidelight.store import batch_size
from sidelight.store.batch_size import BatchSizer
from sidelight.store.statements import _pieces


@pytest.fixture
def sizes(monkeypatch):
    """Splits batches, and advances the clock by what each piece is said to take."""
    now, sizer = [0.0], BatchSizer(1.0)
    monkeypatch.setattr(batch_size, "monotonic", lambda: now[0])

    def sizes(count, seconds):
        found = []
        for piece in sizer.split(range(count)):
            found.append(len(piece))
            with contextlib.suppress(ZeroDivisionError), sizer:
                now[0] += seconds or 1 / 0
        assert sum(found) == count
        return found

    return sizes


FAILS = 0


@pytest.mark.parametrize(
    ("before", "count", "seconds", "expected"),
    [
        (None, 0, 0.1, [0]),
        (None, 5, 0.1, [5]),
        (None, 40_000, 0.1, [2000, 4000, 8000, 10_000, 10_000, 6000]),
        ((40_000, 0.1), 10, 0.1, [10]),
        ((40_000, 0.1), 21_000, 2, [10_000, 5000, 2500, 2000, 1500]),
        (None, 4_500, FAILS, [2000, 1000, 500, 250, 250, 250, 250]),
    ],
    ids=["nothing", "one piece", "quick", "small after quick", "slow", "failing"],
)
def test_sizes(sizes, before, count, seconds, expected):
    if before:
        sizes(*before)
    assert sizes(count, seconds) == expected


def test_a_batch_is_stored_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(batch_size, "_USUAL", 7)
    store(url := sqlite(tmp_path), [record(at=NOON + n) for n in range(30)])
    events = exact(url)
    assert len(events) == 30
    assert len({event.recorded_ns for event in events}) > 1


def test_the_statements_of_sqlite_have_few_sizes():
    """SQLite compiles a statement for each size, which takes as long as to insert the rows."""
    sizes = set()
    for count in range(1100):
        rows = [(n,) for n in range(count)]
        pieces = [*_pieces(rows)]
        assert [row for piece in pieces for row in piece] == rows
        assert len(pieces) <= count // 500 + 4
        sizes |= {len(piece) for piece in pieces}
    assert sizes == {*range(1, 64), 64, 128, 256, 512, 1000}
