"""Row 16: emissions inside emissions. Each is written, and none deadlocks."""

import json

import pytest
from tests.support.emitting import Order
from tests.support.programs import deliver, judge, running
from tests.support.reentering import WAYS

from sidelight import Store

PRELUDE = """
from tests.support import reentering

if {way!r} == "a logging handler":
    decorate(value=lambda n: reentering.logged(n))
reentering.WAYS[{way!r}]()
"""
FINALE = """
n = {calls}
while reentering.times() <= {calls} // 10:  # a fast machine makes all calls between a few signals
    call(n := n + 3)
reentering.tell({path!r})
"""
CALLS = 80
"""The calls of a program in which every line of sidelight emits."""


@pytest.mark.parametrize("way", WAYS)
def test_an_emission_in_the_middle_of_another(way, tmp_path, full, settled):
    store, told = f"sqlite:///{tmp_path / 'events.db'}", tmp_path / "ids.json"
    at_every_line = way.startswith("sys.")
    calls = (CALLS if at_every_line else 2_000) * (10 if full else 1)
    order = Order(
        calls=calls,
        prelude=PRELUDE.format(way=way),
        finale=FINALE.format(path=str(told), calls=calls),
    )
    with running(store, order=order) as program:
        program.emit(calls, seconds=300)
        assert program.end() == 0, program.told()
    inside = json.loads(told.read_text())
    settled(16, f"from {way}", store, program, injected=len(inside), budget=not at_every_line)
    assert len(inside) > calls // 10
    assert set(inside) == ids(store, "reentered")


def test_emissions_while_the_spool_is_being_opened(tmp_path, row):
    """The first signal opens the spool. More signals arrive before it is open."""
    store, told = f"sqlite:///{tmp_path / 'events.db'}", tmp_path / "ids.json"
    order = Order(
        calls=50,
        configure=None,
        prelude="from tests.support import reentering\nreentering.from_signal(1e-4)",
        finale=f"reentering.tell({str(told)!r})",
    )
    with running(store, order=order) as program:
        assert program.end() == 0, program.told()
    inside = json.loads(told.read_text())
    deliver(store)
    verdict = judge(store, program)
    row(16, "while the spool is opened", injected=len(inside), verdict=verdict, budget=False)
    assert "" not in inside
    assert set(inside) == ids(store, "reentered")


def ids(store, type_):
    with Store(store) as opened:
        return {str(event.event_id) for event in opened.events(type=type_)}
