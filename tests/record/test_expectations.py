"""Expectations, as a map and a catalogue declare them."""

import re
from datetime import timedelta
from pathlib import Path

import pytest

from sidelight.exceptions import CatalogueError, MapError
from sidelight.maps.reader import parse_map
from sidelight.record import Expectation, alike
from sidelight.record.event_types import Catalogue

MAP = """
[[expect]]
after = "received"
one_of = ["completed", "failed"]
within = "10m"

[[point]]
function = "shop:send"
success = "sent"

[[expect]]
after = "sent"
one_of = "arrived"
within = "2d"
"""
BOTH = [
    Expectation(after="received", one_of=("completed", "failed"), within=timedelta(minutes=10)),
    Expectation(after="sent", one_of=("arrived",), within=timedelta(days=2)),
]


def test_a_map_expects():
    read = parse_map(MAP, Path("sidelight.toml"))
    assert list(read.expectations) == BOTH
    assert [point.function for point in read.points] == ["shop:send"]
    assert str(BOTH[0]) == "received → completed or failed"
    assert BOTH[0].within_ns == 600 * 10**9


def test_a_catalogue_expects():
    made = Catalogue()
    assert made.expect(after="received", one_of=["completed", "failed"], within="10m") == BOTH[0]
    made.expect(after="sent", one_of="arrived", within=timedelta(days=2))
    made.expect(after="sent", one_of=["arrived"], within="2d")
    assert made.expectations == BOTH
    made.clear()
    assert made.expectations == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('within = "soon"', "5: 'soon' is no duration; write 90s, 10m, 2h or 7d"),
        ('within = "0s"', "5: '0s' is no duration"),
        ('within = "1h"\nunless = "x"', "unless is not known; an expectation has after, one_of"),
        ("", "within is missing; every expect needs it"),
    ],
)
def test_a_mistake_in_a_map_has_its_line_and_a_remedy(line, message):
    text = f'\n[[expect]]\nafter = "received"\none_of = ["completed"]\n{line}\n'
    with pytest.raises(MapError, match=re.escape(message)):
        parse_map(text, Path("sidelight.toml"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"within": "soon"}, "expect: within: 'soon' is no duration; write 90s"),
        ({"within": 5}, "expect: within: 5 is no duration"),
        ({"one_of": []}, "expect: one_of: "),
        ({"one_of": ["not a type"]}, "expect: one_of: 'not a type' is no event type; use letters"),
        ({"after": "1"}, "expect: after: '1' is no event type"),
    ],
    ids=repr,
)
def test_a_mistake_in_code_has_a_remedy(given, message):
    named = {"after": "received", "one_of": ["completed"], "within": "1m", **given}
    with pytest.raises(CatalogueError, match=re.escape(message)):
        Catalogue().expect(**named)


ORDERS = [f"order-{number:03}" for number in range(1, 40)]


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("order-0O1", "order-001"),
        ("order-4", "order-004, order-014 or order-024"),
        ("ordre-012", "order-012"),
        ("invoice", ""),
    ],
)
def test_a_hint_names_all_names_that_are_equally_near(name, near):
    assert alike(name, ORDERS) == near
    assert alike(name, []) == ""
