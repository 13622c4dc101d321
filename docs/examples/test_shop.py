"""A test of an application with a factory, with frozen time, also under ``pytest -n 2``.

pytest test_shop.py
"""

import datetime
from collections.abc import Callable

import pytest
from freezegun import freeze_time

import sidelight
from sidelight import arg, emits
from sidelight.testing import Recorded

Sell = Callable[[str], datetime.date]


def create_app(store: str) -> Sell:
    """The application's factory configures sidelight itself, as in production."""
    sidelight.configure(store)

    @emits("sold", failure="not_sold", artifact_id=arg.item)
    def sell(item: str) -> datetime.date:
        if not item:
            raise ValueError("no item")
        return datetime.datetime.now(tz=datetime.UTC).date()

    return sell


@pytest.fixture
def sell() -> Sell:
    """The application under test."""
    return create_app("sqlite:///production.db")


@pytest.mark.parametrize("item", ["tea", "milk"])
def test_a_sale(sell: Sell, sidelight_events: Recorded, item: str) -> None:
    """The fixture records, whatever the factory configures; nothing is opened."""
    with freeze_time("2026-01-02"):
        assert sell(item) == datetime.date(2026, 1, 2)
    event = sidelight_events.one("sold", artifact_id=item)
    assert event.occurred_at.year == 2026


def test_a_failure(sell: Sell, sidelight_events: Recorded) -> None:
    """A failure has the type of its error."""
    with pytest.raises(ValueError, match="no item"):
        sell("")
    assert sidelight_events.one("not_sold").error_type == "ValueError"
