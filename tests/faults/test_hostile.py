"""Row 13: hostile values, on their way from a real process into a real store."""

import json

import pytest
from tests.support.emitting import Order
from tests.support.hostile import NAMES, VALUES
from tests.support.postgres import new_database
from tests.support.programs import deliver, judge, nothing_left, running

from sidelight import Store
from sidelight.record.values import MAX_ALL_TEXT

PRELUDE = """
from tests.support import hostile

hostile.prepare()
sys.setswitchinterval(1e-4)  # one value is changed by another thread, all the time
decorate(value=lambda n: hostile.value_of(n))
emit_plainly = sidelight.emit
sidelight.emit = lambda type, n, **named: emit_plainly(type, n=n, value=hostile.value_of(n))
"""
STORES = {
    "SQLite": lambda directory: f"sqlite:///{directory / 'events.db'}",
    "PostgreSQL": lambda _: new_database(),
}


@pytest.mark.parametrize("database", STORES)
def test_each_value_in_each_kind_of_call(database, tmp_path, full, row):
    """The event shows each value, cut to a bound. The calls stay within the budget."""
    store, spool = STORES[database](tmp_path), tmp_path / "spool"
    calls = len(NAMES) * (200 if full else 25 if database == "SQLite" else 5)
    order = Order(calls=calls, prelude=PRELUDE, finale="assert sidelight.flush(60)")
    with running(store, spool, order=order) as program:
        program.emit(calls, seconds=300)
        assert program.end() == 0, program.told()
    deliver(store, spool)
    verdict = judge(store, program)
    row(13, f"hostile values, {database}", injected=len(NAMES), verdict=verdict)
    with Store(store) as opened:
        for event in opened.events():
            if (n := event.attributes.get("n")) is None:
                assert event.type.startswith("told_")  # by the value that emits
                continue
            name = NAMES[n % len(NAMES)]
            told = json.dumps(event.attributes["value"], separators=(",", ":"), ensure_ascii=False)
            assert VALUES[name][1] in told, name
            assert len(told) < 2 * MAX_ALL_TEXT
        assert opened.losses() == []
    nothing_left(store, spool)
