"""A frozen time, as freezegun makes it, stops no wait and falsifies no duration."""

import asyncio
import datetime
import sqlite3
import time
from contextlib import closing

import pytest
from tests.support.telemetry import restore

import sidelight
from sidelight import arg, emits
from sidelight.host import is_time_frozen, monotonic, perf_counter_ns
from sidelight.testing import capture

freezegun = pytest.importorskip("freezegun", reason="pip install freezegun")
FROZEN = datetime.datetime(2020, 2, 29, 12, tzinfo=datetime.UTC)


@emits("sent", start="begun", mode="awaited", artifact_id=arg.x)
async def send(x):
    return x


@freezegun.freeze_time(FROZEN)
def test_the_clocks_run_on():
    assert is_time_frozen()
    before = monotonic(), perf_counter_ns()
    frozen_before = time.monotonic()
    time.sleep(0.01)
    assert (monotonic(), perf_counter_ns()) > before
    assert time.monotonic() == frozen_before


def test_the_time_is_not_frozen_otherwise():
    assert not is_time_frozen()


def test_an_event_has_the_frozen_time_and_its_real_duration():
    with capture() as recorded, freezegun.freeze_time(FROZEN):
        asyncio.run(send("a"))
        sidelight.emit("plain", artifact_id="a")
    begun, sent, plain = recorded
    assert begun.occurred_at == plain.occurred_at == FROZEN
    assert 0 < sent.duration_ns < 60e9
    assert datetime.timedelta(0) <= sent.occurred_at - FROZEN < datetime.timedelta(seconds=60)


def test_no_wait_for_a_locked_store_is_endless(tmp_path):
    path = tmp_path / "events.db"
    sidelight.configure(f"sqlite:///{path}", otlp=False)
    try:
        asyncio.run(send("warm"))
        assert sidelight.flush(60)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with freezegun.freeze_time(FROZEN):
                asyncio.run(send("a"))
                sidelight.emit("plain", mode="awaited", artifact_id="a").wait()
                assert not sidelight.flush(0.2)
            other.execute("ROLLBACK")
            with freezegun.freeze_time(FROZEN):
                assert sidelight.flush(60)
    finally:
        restore()
