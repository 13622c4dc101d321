"""The model behind docs/explanation/at-scale.md: it loses nothing, and the page has its table."""

from pathlib import Path

import pytest
from benchmarks.outage import HOUR, MEASURED, SIZES, Plan, Rates, behind, outage, plan, table

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "at-scale.md"
RATES = Rates(relay=1000, consumer=100, store=250, message=200, row=500)


@pytest.mark.parametrize(("rate", "capacity", "away"), [(10, 25, 60), (7, 7.5, 100), (10, 5, 10)])
def test_what_arrives_is_stored_or_waits(rate, capacity, away):
    before = 0.0
    for second, lag, waited in behind(rate, capacity, away, 500):
        stored = rate * (second + 1) - lag
        assert before <= stored <= before + capacity
        assert stored == before or second >= away
        assert 0 <= lag <= rate * (second + 1)
        assert waited == pytest.approx(lag / rate)
        before = stored


def test_an_outage_lasts_as_long_as_the_rates_say():
    """What waits goes down by the capacity less the rate in each second."""
    planned = Plan(100, 1, 2, 6, 1, 0, 0)
    happened = outage(planned, RATES, away=600)
    assert happened.peak == 100 * 600
    assert happened.longest_wait == 600
    assert happened.caught_up == pytest.approx(600 * 100 / (200 - 100), abs=1)
    assert happened.topic_bytes == happened.peak * 200 * 3


def test_a_plan_that_is_too_small_never_catches_up():
    assert outage(Plan(200, 1, 2, 6, 1, 0, 0), RATES).caught_up is None


@pytest.mark.parametrize("events", [1, *SIZES, 10**10])
@pytest.mark.parametrize("rates", [RATES, MEASURED])
def test_every_plan_catches_up_with_an_hour_within_an_hour(events, rates):
    planned = plan(events, rates)
    assert planned.consumers >= 2
    assert planned.partitions >= planned.consumers
    assert planned.consumers * rates.consumer >= 2 * planned.rate
    assert planned.stores * rates.store >= 2 * planned.rate
    assert outage(planned, rates).caught_up <= HOUR


def test_a_partition_is_a_month_of_one_store():
    planned = plan(10**9, RATES)
    assert planned.stores > 1
    assert planned.partition_bytes * planned.stores == pytest.approx(planned.store_bytes * 30)


def test_the_page_shows_the_table_of_the_model():
    assert "\n".join(table(SIZES, MEASURED)) in PAGE.read_text("utf-8")
