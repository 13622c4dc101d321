"""Notes of processes are held until all that was sent before them is stored."""

import pytest
from tests.support.stored import NOON

from sidelight.stream.notes import HeldNotes
from sidelight.stream.reading import Told


def note(at, *, process="p", is_end=False):
    return Told({"instance": process}, (), None, NOON + at, "alive", is_end)


@pytest.fixture
def held():
    return HeldNotes()


def due(held, **reached):
    found = held.due({int(n[1:]): to for n, to in reached.items()})
    return [note.at - NOON for note, _partition, _offset in found]


def test_a_note_waits_for_the_other_partitions(held):
    held.hold(note(1), 0, 10)
    assert due(held, p0=99, p1=99) == []  # what else the topic holds is not known yet
    held.note_ends({0: 11, 1: 50})
    assert due(held, p0=11, p1=49) == []
    assert due(held, p0=11, p1=50) == [1]


def test_a_later_note_waits_for_more(held):
    held.hold(note(1), 0, 10)
    held.note_ends({0: 11, 1: 50})
    held.hold(note(2), 0, 11)
    assert due(held, p0=99, p1=99) == [1]
    held.note_ends({0: 12, 1: 60})
    assert due(held, p0=12, p1=59) == [1]
    assert due(held, p0=12, p1=60) == [1, 2]


def test_the_commit_stays_in_front_of_the_first_note(held):
    first = note(1)
    for place, each in enumerate([first, note(2), note(3, process="q")]):
        held.hold(each, place % 2, 10 + place)
    assert held.first_offsets() == {0: 10, 1: 11}
    held.forget(first)
    assert held.first_offsets() == {0: 12, 1: 11}
    held.forget_others({0})
    assert held.first_offsets() == {0: 12}


def test_the_memory_is_bounded_and_ends_are_kept(held):
    """A consumer that is an hour behind reads hundreds of signs of each process."""
    for at in range(500):
        held.hold(note(at), 0, at)
    held.hold(note(500, is_end=True), 0, 500)
    held.note_ends({0: 501})
    assert due(held, p0=501) == [0, 499, 500]


def test_the_brokers_are_asked_once_a_second(held):
    assert not held.asks()
    held.hold(note(1), 0, 1)
    assert held.asks()
    assert not held.asks()
    assert held.asks(now=True)
