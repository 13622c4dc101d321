"""Row 8: the spool at its bound. Records are dropped in the declared order, and counted."""

import contextlib
import sqlite3
import threading
import time
from collections import Counter

import pytest
from tests.support.emitting import Order
from tests.support.preludes import PACED, gated, padded, with_room
from tests.support.programs import deliver, judge, nothing_left, running, wait_until
from tests.support.proxy import Proxy

from sidelight.record.format import SPAN, decode
from sidelight.spool.directory import segments_in
from sidelight.spool.header import PAGE
from sidelight.spool.scanner import Scanner
from sidelight.spool.segment import SMALL, Segment
from sidelight.store.sink import StoreSink

LIMIT = 8 * 1024 * 1024


def make(store):
    """Create an empty store."""
    with contextlib.closing(StoreSink(store)) as sink:
        sink.write((), {})


@contextlib.contextmanager
def locked(path):
    """Keep a transaction open in an existing store."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.close()


def held(spool):
    """Return the size of a spool directory in bytes."""
    total = 0
    for path in segments_in(spool):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def records_in(spool):
    """Yield the records of each segment of a spool directory."""
    for path in segments_in(spool):
        with contextlib.closing(Segment.inspect(path)) as segment:
            scanner = Scanner(segment, PAGE)
            found = []
            while payloads := scanner.batch(1000).payloads:
                found += map(decode, payloads)
            yield found


class Watch(threading.Thread):
    """Measures the largest size of a spool directory, in bytes."""

    def __init__(self, spool):
        super().__init__(daemon=True)
        self.spool, self.most, self.over = spool, 0, threading.Event()
        self.start()

    def run(self):
        while not self.over.wait(0.01):
            self.most = max(self.most, held(self.spool))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.over.set()
        self.join()


@pytest.fixture
def store(tmp_path):
    return f"sqlite:///{tmp_path / 'events.db'}"


@pytest.fixture
def spool(tmp_path):
    return tmp_path / "events.db-spool"


@pytest.fixture
def collector():
    """Start a Collector that refuses connections until `answer(200)`."""
    with Proxy(mode="refuse") as proxy:
        yield proxy


def test_telemetry_goes_first_where_the_store_has_it(store, spool, collector, full, progress, row):
    """Without a Collector the spool drops spans and logs. The store has each event."""
    calls = 4_000 if full else 700
    limit = 4 * LIMIT
    order = Order(
        calls=calls,
        prelude=padded(60) + PACED + with_room(limit - LIMIT // 8),
        configure={"otlp": collector.endpoint, "spool_limit": limit},
    )
    with running(store, order=order) as program, Watch(spool) as watch:
        while program.process.poll() is None:
            progress(f"{program.calls} of {calls} calls")
            time.sleep(0.05)
        assert program.end() == 0, program.told()
    collector.answer(200)
    deliver(store, otlp=collector.endpoint)
    verdict = judge(store, program)
    let_go = verdict.counted["spool full: telemetry let go"]
    row(8, "spool at its bound, Collector down", injected=let_go, verdict=verdict)
    assert verdict.let_go == 0
    assert let_go >= calls * 60_000 // limit
    assert limit // 2 < watch.most <= limit
    nothing_left(store)


def test_at_the_bound_spans_go_and_then_events(store, spool, collector, tmp_path, full, row):
    """Without store and Collector, spans are dropped before events."""
    order = Order(
        pause=0.01,
        prelude=padded(60),
        configure={"otlp": collector.endpoint, "spool_limit": LIMIT},
    )
    with running(store, order=order) as program, Watch(spool) as watch:
        program.emit(100)
        wait_until((tmp_path / "events.db").exists)
        with locked(tmp_path / "events.db"):
            wait_until(lambda: len(program.reports.lost) > (2000 if full else 100))
            kept = [record for records in records_in(spool) for record in records]
        loses_nothing_any_more(program)
        assert program.stop() == 0, program.told()
    collector.answer(200)
    deliver(store, otlp=collector.endpoint)
    verdict = judge(store, program)
    row(8, "spool at its bound, store locked", injected=verdict.let_go, verdict=verdict)
    assert verdict.stored + verdict.let_go == verdict.calls
    assert watch.most <= LIMIT
    spans = Counter(bool(moment.flags & SPAN) for static, moment in kept if static.span_name)
    left_out = verdict.counted["spool nearly full: span left out"]
    assert spans[False] > 5
    assert left_out >= spans[False]
    nothing_left(store)


def loses_nothing_any_more(program):
    """Wait until the spool takes calls again."""

    def the_next_calls_are_kept():
        before = len(program.reports.lost)
        program.emit(50)
        return len(program.reports.lost) == before

    wait_until(the_next_calls_are_kept)


def test_several_processes_within_one_bound(store, spool, tmp_path, full, row):
    """Each process counts its losses. Together the processes stay within the bound."""
    programs, gate = 8 if full else 3, tmp_path / "gate"
    make(store)
    with contextlib.ExitStack() as stack:
        watch = stack.enter_context(Watch(spool))
        with locked(tmp_path / "events.db"):
            started = [
                stack.enter_context(
                    running(
                        store,
                        order=Order(
                            first=number * 10_000_000,
                            pause=0.01,
                            prelude=padded(60) + gated(gate),
                            configure={"spool_limit": LIMIT},
                        ),
                    )
                )
                for number in range(programs)
            ]
            # A program that finds the spool full begins in memory, and may lose that at its end.
            wait_until(lambda: len(list(segments_in(spool))) >= programs)
            gate.touch()
            for program in started:
                wait_until(lambda p=program: len(p.reports.lost) > 50)
            for program in started[1:]:  # these end while it lasts
                assert program.stop() == 0, program.told()
        loses_nothing_any_more(started[0])
        assert started[0].stop() == 0, started[0].told()
    deliver(store)
    verdict = judge(store, *started)
    row(
        8,
        f"{programs} processes at one bound, store locked",
        injected=verdict.let_go,
        verdict=verdict,
    )
    assert verdict.stored + verdict.let_go == verdict.calls
    assert watch.most <= LIMIT + LIMIT // 8
    nothing_left(store)


def test_short_programs_share_the_bound_for_long(store, spool, tmp_path, full, progress, settled):
    """Each program leaves its records, and gives back the rest of its segment."""
    programs, calls = (60 if full else 6), 20
    make(store)
    ended = []
    with locked(tmp_path / "events.db"):
        for number in range(programs):
            progress(f"program {number + 1} of {programs}")
            order = Order(first=number * 10_000_000, calls=calls, pause=0.001)
            with running(store, order=order) as program:
                assert program.end() == 0, program.told()
            ended.append(program)
        assert held(spool) < (programs + 1) * SMALL
    verdict = settled(8, "short programs, store locked", store, *ended, injected=programs)
    assert verdict.stored == programs * calls
