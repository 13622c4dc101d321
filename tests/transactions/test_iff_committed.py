"""The event exists if and only if the transaction commits, with any name for it."""

import functools

import pytest
from tests.support.business import committed, keys

from sidelight.emission.emitter import EMITTER


class Changed(Exception):
    """The caller has changed its mind."""


def commit(unit, order):
    order("one")
    order("two")
    unit.commit()


def roll_back(unit, order):
    order("gone")
    unit.rollback()
    order("kept")
    unit.commit()
    order("left")


def roll_back_to_savepoints(unit, order):
    order("before")
    with pytest.raises(Changed), unit.savepoint():
        order("in vain")
        raise Changed
    with unit.savepoint():
        order("inside")
        with pytest.raises(Changed), unit.savepoint():
            order("deeper in vain")
            raise Changed
        with unit.savepoint():
            order("deeper")
    with pytest.raises(Changed), unit.savepoint():
        with unit.savepoint():
            order("released, then rolled back")
        raise Changed
    order("after")
    unit.commit()


def roll_back_after_released_savepoints(unit, order):
    order("before a savepoint")
    with unit.savepoint():
        order("inside a savepoint")
    unit.rollback()


UNITS = {
    commit: {"one", "two"},
    roll_back: {"kept"},
    roll_back_to_savepoints: {"before", "inside", "deeper", "after"},
    roll_back_after_released_savepoints: set(),
}
"""Units of work, and the names of the orders that each commits."""


@pytest.mark.one_in(3)
def test_the_events_are_those_of_the_committed_rows(application, watched, url):
    """Each event has the key that the database gave to its row."""
    for work in UNITS:
        with application.unit() as unit:
            work(unit, functools.partial(application.order, unit.target))
    assert watched.names() == committed(url) == set().union(*UNITS.values())
    found = {event.attributes["n"]: event.artifact_id for event in watched.events()}
    assert found == {name: str(key) for name, key in keys(url).items()}
    assert not EMITTER.losses


@pytest.mark.one_in(3)
def test_the_event_of_a_function_that_commits_is_told_and_not_joined(
    application, join, watched, url
):
    """The function orders and commits, or commits and orders."""
    if not application.commits:
        pytest.skip("its blocks are left where they were entered")
    with application.unit() as unit:
        application.order_and_commit(unit.target, "mine")
    with application.unit() as unit:
        application.commit_and_order(unit.target, "left")
    told = {"transaction": "ended by the function", "after_commit": None}[join]
    found = {event.attributes["n"]: event.attributes for event in watched.events()}
    assert [each.get("sidelight.not_joined") for each in found.values()] == [told, told]
    assert found.keys() == {"mine", "left"}
    assert committed(url) == {"mine", "left before"}
    assert EMITTER.losses == ({} if told is None else {f"not joined: {told}": 2})
