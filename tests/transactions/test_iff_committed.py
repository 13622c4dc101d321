"""The event exists if and only if the transaction commits, with any name for it."""

import pytest
from tests.support.business import committed

from sidelight.emission.emitter import EMITTER


class Changed(Exception):
    """The caller has changed its mind."""


def test_a_commit_makes_the_event(application, watched, url):
    with application.unit() as unit:
        application.order(unit.target, "one")
        application.order(unit.target, "two")
        unit.commit()
    assert watched.names() == committed(url) == {"one", "two"}
    assert not EMITTER.losses


def test_a_rollback_unmakes_it(application, watched, url):
    with application.unit() as unit:
        application.order(unit.target, "gone")
        unit.rollback()
        application.order(unit.target, "kept")
        unit.commit()
        application.order(unit.target, "left")
    assert watched.names() == committed(url) == {"kept"}
    assert not EMITTER.losses


def test_a_savepoint_takes_its_events_along(application, watched, url):
    with application.unit() as unit:
        application.order(unit.target, "before")
        with pytest.raises(Changed), unit.savepoint():
            application.order(unit.target, "in vain")
            raise Changed
        with unit.savepoint():
            application.order(unit.target, "inside")
            with pytest.raises(Changed), unit.savepoint():
                application.order(unit.target, "deeper in vain")
                raise Changed
            with unit.savepoint():
                application.order(unit.target, "deeper")
        with pytest.raises(Changed), unit.savepoint():
            with unit.savepoint():
                application.order(unit.target, "released, then rolled back")
            raise Changed
        application.order(unit.target, "after")
        unit.commit()
    assert watched.names() == committed(url) == {"before", "inside", "deeper", "after"}
    assert not EMITTER.losses


def test_all_is_rolled_back_after_released_savepoints(application, watched, url):
    with application.unit() as unit:
        application.order(unit.target, "before")
        with unit.savepoint():
            application.order(unit.target, "inside")
        unit.rollback()
    assert watched.names() == committed(url) == set()


def test_a_key_that_the_database_gives_is_known(application, watched):
    with application.unit() as unit:
        application.order(unit.target, "one")
        unit.commit()
    (event,) = watched.events()
    assert event.artifact_id == "1"


def test_who_commits_by_himself_has_the_event_all_the_same(application, join, watched, url):
    if not application.commits:
        pytest.skip("its blocks are left where they were entered")
    with application.unit() as unit:
        application.order_and_commit(unit.target, "mine")
    (event,) = watched.events()
    assert event.attributes["n"] == "mine"
    assert committed(url) == {"mine"}
    _not_joined(event, join)


def test_what_is_done_after_a_commit_of_the_function_is_told(application, join, watched):
    if not application.commits:
        pytest.skip("its blocks are left where they were entered")
    with application.unit() as unit:
        application.commit_and_order(unit.target, "two")
    (event,) = watched.events()
    _not_joined(event, join)


def _not_joined(event, join):
    told = {"transaction": "ended by the function", "after_commit": None}[join]
    assert event.attributes.get("sidelight.not_joined") == told
    assert EMITTER.losses == ({} if told is None else {f"not joined: {told}": 1})
