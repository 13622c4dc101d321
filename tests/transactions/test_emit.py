"""`sidelight.emit` in the caller's transaction, from the middle of a function."""

import pytest
from tests.support.business import committed

import sidelight
from sidelight.emission.emitter import EMITTER


@pytest.fixture
def order(application, join):
    """Orders, and says so itself."""
    run = getattr(application, "run", None)

    def order(target, name):
        application.insert(target, name)
        return sidelight.emit("ordered", n=name, **{join: target})

    async def order_awaited(target, name):
        await application.insert(target, name)
        receipt = sidelight.emit("ordered", n=name, **{join: target})
        await receipt
        return receipt

    return order if run is None else lambda target, name: run(order_awaited(target, name))


@pytest.mark.one_in(2)
def test_it_exists_if_and_only_if_the_transaction_commits(application, order, watched, url):
    with application.unit() as unit:
        order(unit.target, "gone")
        unit.rollback()
        receipt = order(unit.target, "kept")
        assert receipt.state == "joined"
        unit.commit()
        order(unit.target, "left")
    assert watched.names() == committed(url) == {"kept"}
    assert not EMITTER.losses
    (event,) = watched.events()
    assert event.event_id == receipt.event_id == str(receipt)


@pytest.mark.parametrize("case", [("async psycopg", "postgresql")], ids=["async psycopg"])
@pytest.mark.parametrize("join", ["transaction"])
def test_a_receipt_that_nobody_awaits_is_an_event_all_the_same(application, watched):
    """It could not join: to insert is to await."""

    async def order(target):
        await application.insert(target, "kept")
        return sidelight.emit("ordered", n="kept", transaction=target)

    with application.unit() as unit:
        application.run(order(unit.target))
        unit.commit()
    (event,) = watched.events()
    assert event.attributes["sidelight.not_joined"] == "not awaited"
    assert EMITTER.losses == {"not joined: not awaited": 1}
