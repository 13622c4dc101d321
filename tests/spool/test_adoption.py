"""Whose segments a process takes over, and how many at once."""

import pytest
from tests.spool.test_spool import payloads_of, write

from sidelight.spool.writer import Spool


def living(directory, **meta):
    spool = Spool(directory, {"sinks": ["store", "traces"], **meta})
    write(spool, b"a record")
    return spool


def leave(directory, number, **meta):
    """What so many processes leave that die at once."""
    for spool in [living(directory, **meta) for _ in range(number)]:
        spool.close()


@pytest.fixture
def reader(tmp_path):
    spool = Spool(tmp_path, {"sinks": ["store", "traces"]})
    yield spool
    spool.close()


def read_by_one(reader):
    """Of more than have a place, those that the store has; the telemetry is reading them."""
    leave(reader.directory, 20)
    reader.adopt()
    being_read = [*reader.adopted]
    for segment in being_read:
        segment.delivered_to.add("store")
    reader.adopted.release(["store", "traces"])
    return being_read


@pytest.mark.parametrize("relay", ["inside", "external"])
def test_only_some_of_the_dead_are_open_at_once(reader, relay):
    leave(reader.directory, 40, relay=relay)
    reader.adopt()
    assert len(reader.adopted) == 16


def test_all_of_the_living_who_want_it_are_read_along(reader):
    leave(reader.directory, 20)
    several = [living(reader.directory, relay="external") for _ in range(5)]
    living_for_themselves = living(reader.directory)
    reader.adopt()
    assert sum(segment.is_live for segment in reader.adopted) == 5
    for spool in (*several, living_for_themselves):
        spool.close()


def test_the_living_take_nobodys_place(reader):
    leave(reader.directory, 16)
    alive = living(reader.directory)
    reader.adopt()
    for segment in reader.adopted:
        segment.delivered_to.add("store")
    before = list(reader.adopted)
    reader.adopted.release(["store", "traces"])
    assert list(reader.adopted) == before
    alive.close()


def test_what_one_sink_has_gives_its_place_up_and_comes_again(reader):
    leave(reader.directory, 40)
    reader.adopt()
    seen = []
    while new := [segment for segment in reader.adopted if not segment.delivered_to]:
        for segment in new:
            segment.delivered_to.add("store")
            seen.append(segment.path)
        reader.adopted.release(["store", "traces"])
        reader.adopted.fill()
    assert len(set(seen)) == len(seen) == 40
    while reader.adopted:
        for segment in tuple(reader.adopted):
            assert segment.delivered_to == {"store"}
            assert payloads_of(segment) == [b"a record"]
            reader.delete(segment)
        reader.adopted.fill()
    assert not [path for path in seen if path.exists()]


def test_what_is_still_being_read_comes_again_as_it_is(reader):
    """Another of it could not be opened: we are its one reader."""
    being_read = read_by_one(reader)
    reader.adopted.fill()
    for segment in tuple(reader.adopted):
        if not segment.delivered_to:
            reader.delete(segment)
    reader.adopted.fill()
    assert set(reader.adopted) == set(being_read)


def test_when_it_closes_it_holds_nothing_that_others_want(reader):
    being_read = read_by_one(reader)
    reader.adopted.close()
    assert {segment.fd for segment in being_read} == {-1}


def test_a_forked_child_holds_nothing_that_others_want(tmp_path):
    """Its parent's locks would outlive the parent in it."""
    parents = Spool(tmp_path, {"sinks": ["store", "traces"]})
    being_read = read_by_one(parents)
    parents.abandon()
    assert {segment.fd for segment in being_read} == {-1}
