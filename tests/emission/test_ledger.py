"""Losses and costs: counted exactly, and delivered whole."""

import gc
import random
import sys
import threading
from types import SimpleNamespace

import msgspec
import pytest
from tests.support.platforms import needs_spool_files
from tests.support.switching import switching
from tests.support.telemetry import restore

import sidelight
from sidelight import emits
from sidelight.emission import EMITTER, Ledger
from sidelight.emission.emitter import Emitter
from sidelight.record import (
    BUDGET_NS,
    FRAME,
    MAX_PAYLOAD,
    SHIFT,
    Costs,
    decode,
    frame,
    ledger_frame,
    ledger_part,
)
from sidelight.runtime import RUNTIME
from sidelight.testing import capture

THREADS, TIMES = 4, 30_000
ADDED = 200


@pytest.fixture
def impatient():
    """Threads take turns as often as the interpreter allows."""
    with switching(1e-6):
        yield


def in_threads(function):
    threads = [
        threading.Thread(target=lambda: [function() for _ in range(TIMES)]) for _ in range(THREADS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_losses_of_several_threads_are_counted_exactly(impatient):
    emitter = Emitter()
    in_threads(lambda: emitter.count("made up", "problem"))
    assert emitter.losses == {"made up": THREADS * TIMES}


@pytest.mark.parametrize(
    ("times", "words"), [(1, "made up, once (no"), (2, "made up, 2 times (no")]
)
def test_losses_are_logged_with_their_number(caplog, times, words):
    emitter = Emitter()
    for _ in range(times):
        emitter.count("made up", "no room")
    Ledger(emitter)._log_losses()
    assert words in caplog.text


def test_costs_of_several_threads_are_counted_exactly(impatient):
    costs = Costs()

    def add():
        costs.add(1_000)
        costs.add(BUDGET_NS + 1)

    in_threads(add)
    counted = costs.snapshot()
    assert (counted["count"], counted["over"]) == (2 * THREADS * TIMES, THREADS * TIMES)


def test_costs_of_a_point_that_is_never_called_take_little_room():
    never, once = Costs(), Costs()
    once.add(1)
    once.add(1)
    assert sys.getsizeof(never.fine) < 100 < sys.getsizeof(once.fine) < 9_000
    assert (never.count(), never.snapshot()["buckets"]) == (0, [])
    once.clear()
    assert (once.count(), len(once.fine)) == (0, 1024)


def test_costs_of_a_point_whose_code_is_gone_take_little_room():
    costs = Costs()
    costs.add(1_000)
    wrappers = costs.fine
    costs.compact()
    assert costs.fine is wrappers
    wrappers[1_000 >> SHIFT] += 1
    before = costs.snapshot()
    del wrappers
    costs.compact()
    assert sys.getsizeof(costs.fine) < 100
    assert costs.snapshot() == before
    costs.add(1_000)
    assert costs.snapshot()["buckets"] == [[1_000 >> SHIFT, 3]]


def test_functions_made_at_run_time_leave_no_fine_buckets():
    """Names that are ever new are points for ever, of a small size."""
    with capture():
        for n in range(3):
            scope = {"__name__": "made"}
            exec(f"def made_{n}(): pass", scope)
            emits("made")(scope.pop(f"made_{n}"))()
        del scope
        gc.collect()
        ledger = Ledger(EMITTER)
        for _ in range(2):
            ledger._write_costs(lambda _: None, whole=True)
        found = [EMITTER.costs[f"made:made_{n}"] for n in range(3)]
        assert [(each.count(), each.fine) for each in found] == [(1, [])] * 3


def test_costs_that_grow_in_several_threads_are_counted_exactly(impatient):
    """Each thread is the first one somewhere, so that all of them extend the list of buckets."""
    costs, spread = Costs(), [*range(0, 80_000, 64)]

    def count_all(first):
        for ns in spread[first:] + spread[:first]:
            try:
                costs.fine[ns >> SHIFT] += 1
            except IndexError:
                costs.add(ns)

    threads = [threading.Thread(target=count_all, args=[n * 100]) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    snapshot = costs.snapshot()
    assert snapshot["count"] == costs.count() == THREADS * len(spread)
    alone = Costs()
    for ns in spread * THREADS:
        alone.add(ns)
    assert dict(snapshot["buckets"]) == dict(alone.snapshot()["buckets"])
    assert abs(snapshot["max"] - alone.snapshot()["max"]) < 5_000  # the width of a coarse bucket


class Kept:
    """A spool that keeps what is appended."""

    def __init__(self):
        self.frames = []
        self.append = self.append_beyond_limit = self.frames.append

    def position(self):
        return 1, len(self.frames)

    def parts(self):
        assert all(len(each) <= FRAME.size + MAX_PAYLOAD for each in self.frames)
        parts = [ledger_part(decode(each[FRAME.size :])[1]) for each in self.frames]
        self.frames.clear()
        return parts


@pytest.fixture
def busy():
    """An emitter with hundreds of points that have been busy for a day."""
    emitter = Emitter()
    generator = random.Random(2)
    for number in range(400):
        costs = emitter.costs_of(f"shop.services.module:function_number_{number}")
        for _ in range(ADDED):
            costs.add(int(generator.lognormvariate(9.5, 2.0)))
    emitter.count("field x not captured", "a problem")
    return emitter


def told(parts):
    losses, costs = {}, {}
    for part in parts:
        losses |= part.losses
        costs |= {point: each.count for point, each in part.costs.items()}
    return losses, costs


def test_a_large_ledger_is_written_whole_in_parts_with_losses_first(busy):
    Ledger(busy).write(spool := Kept())
    parts = spool.parts()
    assert len(parts) > 3
    assert parts[0].losses
    assert told(parts) == ({"field x not captured": 1}, dict.fromkeys(busy.costs, ADDED))


def test_only_what_has_changed_is_written_again(busy):
    ledger = Ledger(busy)
    ledger.write(spool := Kept())
    spool.frames.clear()
    ledger.write(spool)
    assert spool.parts() == []
    point = next(iter(busy.costs))
    busy.costs[point].add(1_000)
    ledger.write(spool)
    assert told(spool.parts()) == ({}, {point: ADDED + 1})
    ledger.renewed().write(spool)
    assert told(spool.parts())[1].keys() == busy.costs.keys()


def test_a_round_of_the_relay_writes_one_part_of_costs_and_reaches_all_points_in_turn(
    busy, monkeypatch
):
    monkeypatch.setattr("sidelight.emission.ledger.SIGN_OF_LIFE", float("inf"))
    ledger, spool, written = Ledger(busy), Kept(), {}
    ledger.write(spool, whole=False)
    losses, costs = told(spool.parts())
    assert losses
    rounds = 1
    while len(written := written | costs) < len(busy.costs):
        for each in busy.costs.values():
            each.add(1_000)
        ledger.write(spool, whole=False)
        (part,) = spool.parts()
        costs = told([part])[1]
        rounds += 1
        assert rounds < 100


def test_a_part_that_does_not_fit_is_written_by_the_next_call(busy):
    ledger, spool = Ledger(busy), Kept()

    def full(_):
        raise OSError

    spool.append = full
    ledger.write(spool)
    spool.append = spool.frames.append
    ledger.write(spool)
    assert told(spool.parts())[0] == {"field x not captured": 1}


def test_a_problem_or_a_point_without_bounds_passes_no_bound():
    emitter = Emitter()
    emitter.count("r" * 1_000_000, "p" * 1_000_000)
    emitter.count("short", "p")
    emitter.costs_of("f" * 1_000_000).add(1)
    Ledger(emitter).write(spool := Kept())
    losses, costs = told(spool.parts())
    assert {"short", *losses} == {"short", "r" * 200}
    assert costs == {}


def test_no_frame_is_larger_than_the_reader_accepts():
    frame(bytes(MAX_PAYLOAD))
    with pytest.raises(ValueError, match="larger than a record"):
        frame(bytes(MAX_PAYLOAD + 1))


@pytest.mark.parametrize(
    "content",
    [
        {"losses": ["r"]},
        {"losses": {"r": "many"}},
        {"losses": {"r": -1}},
        {"losses": {"r": 1 << 63}},
        {"problems": {"r": 3}},
        {"costs": {"p": {"count": 1}}},
        {"costs": {"p": {"count": 1, "over": 0, "max": 1, "buckets": [[1]]}}},
    ],
    ids=str,
)
def test_a_record_without_the_shape_of_a_ledger_is_refused(content):
    _, moment = decode(ledger_frame(content, 1, 1)[FRAME.size :])
    with pytest.raises(msgspec.ValidationError):
        ledger_part(moment)


@needs_spool_files  # the quarantine
def test_a_malformed_ledger_is_set_aside_and_events_beside_it_are_stored(tmp_path):
    sidelight.configure(f"sqlite:///{tmp_path / 'events.db'}", otlp=False)
    try:
        sidelight.emit("before", artifact_id="a")
        RUNTIME.spool.append(ledger_frame({"costs": {"p": {"count": []}}}, 1, 1))
        sidelight.emit("after", artifact_id="a")
        assert sidelight.flush(60)
    finally:
        restore()
    with sidelight.Store(f"sqlite:///{tmp_path / 'events.db'}") as store:
        assert [event.type for event in store.events()] == ["before", "after"]
        assert sum(loss.count for loss in store.losses()) == 1


@pytest.mark.parametrize(
    ("busy_until", "expected"),
    [(0, [0, 10, 30, 50]), (60, [*range(0, 60, 5)]), (22, [0, 5, 10, 15, 20, 25, 35, 55])],
    ids=["idle", "busy", "idle later"],
)
def test_an_idle_process_writes_fewer_signs_of_life(monkeypatch, busy_until, expected):
    now, written, signs = 1000.0, [], []
    monkeypatch.setattr("sidelight.emission.ledger.monotonic", lambda: now)
    spool = SimpleNamespace(append=written.append, position=lambda: (1, len(written)))
    ledger = Ledger(Emitter())
    for half in range(120):
        now = 1000.0 + half / 2
        before = len(written)
        ledger.write(spool)
        signs += [half / 2] * (len(written) - before)
        if half / 2 < busy_until:
            written.append(b"an event")
    assert signs == expected
