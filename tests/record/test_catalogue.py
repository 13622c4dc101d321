"""The catalogue: event types with models of what they carry."""

import sqlite3
import sys
from contextlib import closing
from datetime import UTC, datetime

import pytest
from pydantic import BaseModel
from tests.support.stored import record, store

import sidelight
from sidelight import Store, arg, emits
from sidelight.emission.emitter import EMITTER
from sidelight.exceptions import CatalogueError, InstrumentationError
from sidelight.record.event_types import Catalogue
from sidelight.record.format import CUT, event_id
from sidelight.store.sink import StoreSink
from sidelight.testing import capture


class Sold(BaseModel):
    """Something was sold."""

    price: int
    at: datetime | None = None


class About(BaseModel):
    artifact_id: str


@pytest.fixture(autouse=True)
def declared(empty_catalogue):
    sidelight.catalogue.event("sold", emitted_by="shop:sell")(Sold)
    sidelight.catalogue.event("named")(About)


@emits("sold", artifact_id=arg.item, price=arg.price)
def sell(item, price):
    return price


def test_what_is_declared():
    sold = sidelight.catalogue.get("sold")
    assert (sold.name, sold.payload, sold.emitted_by) == ("sold", Sold, ("shop:sell",))
    assert sold.description == "Something was sold."
    assert sidelight.catalogue.get("named").description == ""
    assert sidelight.catalogue.get("other") is None
    names = [each.name for each in sidelight.catalogue]  # other modules may have declared some
    assert {"named", "sold"} <= set(names)
    assert names == sorted(names)
    assert len(sidelight.catalogue) == len(names)
    schema = sidelight.catalogue.json_schema()
    assert schema["$defs"]["sold"]["properties"]["price"] == {"title": "Price", "type": "integer"}


@pytest.mark.parametrize(
    ("type_", "model", "message"),
    [
        ("1st", Sold, "not a name for an event type"),
        (None, Sold, "not a name for an event type"),
        ("x", object, "not a pydantic model"),
        ("x", 3, "not a pydantic model"),
        ("sold", About, r"already declared, by .*test_catalogue:Sold"),
    ],
)
def test_refusals(type_, model, message):
    with pytest.raises(CatalogueError, match=message):
        sidelight.catalogue.event(type_)(model)


def test_a_module_that_is_loaded_again_declares_again():
    before = len(sidelight.catalogue)
    sidelight.catalogue.event("sold")(Sold)
    assert len(sidelight.catalogue) == before


def test_strict_mode_raises_at_emission():
    with capture() as recorded:
        assert sell("i1", 3) == 3
        with pytest.raises(
            InstrumentationError, match=r"sold does not match its declar.*price: Inp"
        ):
            sell("i2", "dear")
        with pytest.raises(InstrumentationError, match=r"artifact_id: Field required"):
            sidelight.emit("named")
        sidelight.emit("named", artifact_id="a1")
        sidelight.emit("undeclared", price="dear")
    assert recorded.types == ["sold", "named", "undeclared"]


def test_values_are_compared_in_their_plain_form():
    with capture() as recorded:
        sidelight.emit("sold", price="3", at=datetime(2026, 7, 25, tzinfo=UTC))
    assert recorded.one("sold").attributes["at"].startswith("2026-07-25")


def test_otherwise_nothing_is_raised():
    with capture(strict=False) as recorded:
        assert sell("i1", "dear") == "dear"
    assert recorded.types == ["sold"]


def test_strict_configuration(tmp_path):
    sidelight.configure(f"sqlite:///{tmp_path / 'events.db'}", strict=True, otlp=False)
    try:
        sell("i1", 3)
        with pytest.raises(InstrumentationError, match="price"):
            sell("i2", "dear")
        assert not sidelight.flush()  # tells of the lost event, once
        assert sidelight.flush()
    finally:
        sidelight.runtime.process.RUNTIME.close(1.0)
        EMITTER.strict = False
    with Store(f"sqlite:///{tmp_path / 'events.db'}") as opened:
        assert [event.artifact_id for event in opened.events()] == ["i1"]


def test_the_relay_stores_marks_and_counts(tmp_path):
    url = f"sqlite:///{tmp_path / 'events.db'}"
    counted = []
    with closing(StoreSink(url, lambda *why: counted.append(why))) as sink:
        good = record("sold", attributes={"price": 3})
        bad = record("sold", attributes={"price": "dear", "colour": "red"})
        sink.write([good, bad, record("other")], {"instance": "p1"})
    with Store(url) as opened:
        marks = [event.attributes.get("sidelight.invalid") for event in opened.events(type="sold")]
        assert opened.size() == 3
    assert marks.count(None) == 1
    (mark,) = [mark for mark in marks if mark]
    assert mark.startswith("price: Input should be a valid integer")
    assert counted == [("event not as declared", f"shop:make: sold: {mark}")]


def test_relays_that_share_a_batch_count_what_they_store(tmp_path):
    counted = []
    batch = [record("sold", attributes={"price": price}) for price in ("dear", "cheap")]
    ids = [event_id(moment.time, moment.random) for _, moment in batch]
    url = f"sqlite:///{tmp_path / 'events.db'}"
    for mine in ids:
        with closing(StoreSink(url, lambda *why: counted.append(why))) as sink:
            assert sink.write_claimed(batch, {}, lambda _, mine=mine: {mine}) == {mine}
    with Store(url) as opened:
        assert {event.event_id for event in opened.events()} == set(ids)
    assert len(counted) == 2


def test_what_was_cut_is_not_blamed():
    assert sidelight.catalogue.problem(*record("sold", flags=CUT)) is None
    assert sidelight.catalogue.problem(*record("sold")) == "price: Field required"


def test_where_nothing_is_declared_nothing_is_asked(tmp_path):
    sidelight.catalogue.clear()
    url = f"sqlite:///{tmp_path / 'events.db'}"
    store(url, [record("sold", attributes={"price": "dear"})])
    with closing(sqlite3.connect(tmp_path / "events.db")) as connection:
        assert connection.execute("SELECT attributes FROM events").fetchone() == (
            '{"price":"dear"}',
        )


def test_a_catalogue_of_its_own():
    other = Catalogue()
    other.event("sold")(About)
    assert other.get("sold").payload is About
    assert sidelight.catalogue.get("sold").payload is Sold
    assert "sidelight.record.event_types" in sys.modules
