"""Programs that emit into PostgreSQL while it is frozen, killed or loses its sessions."""

import random
import signal
import time
from collections import Counter

import psycopg
import pytest
from tests.support.oracle import start
from tests.support.postgres import new_database, own_server

from sidelight import Store
from sidelight.exceptions import StoreError
from sidelight.receipt import Progress
from sidelight.relay import Relay
from sidelight.runtime import sinks_of
from sidelight.settings import settle
from sidelight.spool import Spool, segments_in

EMIT = """
    times = open(os.environ["TIMES"], "ab", buffering=0)

    async def main():
        n = 0
        while True:
            for emit in (scheduled, awaited, scheduled_async, awaited_async):
                begun = time.perf_counter()
                done = emit(n)
                if asyncio.iscoroutine(done):
                    done = await done
                times.write(b"%d\\n" % ((time.perf_counter() - begun) * 1e6))
                assert done == n
                acknowledge(n)
                n += 1
            time.sleep(0.005)
    asyncio.run(main())
"""


@pytest.fixture
def server():
    """A server that may be stopped and killed; left as it was found."""
    running = own_server()
    yield running
    running.resume()
    if not running.is_alive():
        running.start()


@pytest.fixture
def url(server):
    return new_database(server)


class Program:
    """A program that emits until it is killed; how long each call took is in a file."""

    def __init__(self, url, directory):
        self.url, self.spool = url, directory / "spool"
        self.times = directory / "times"
        self.child = start(
            EMIT,
            directory / "unused",
            SIDELIGHT_STORE=url,
            SIDELIGHT_SPOOL=str(self.spool),
            TIMES=str(self.times),
        )

    def emit(self, at_least):
        self.child.read(30, at_least)

    def end(self):
        """Kill it, and deliver what it had left."""
        if self.child.process.returncode is None:
            self.child.kill()
        settings = settle(self.url, otlp=False, spool=self.spool)
        spool = Spool(settings.spool, {})
        relay = Relay(spool, sinks_of(settings), Progress())
        try:
            relay.drain(20)
        finally:
            for worker in relay.workers:
                worker.sink.close()
            spool.close()

    def check(self):
        """Nothing lost, nothing twice, every counter as the rows are, and nothing left."""
        acknowledged = set(self.child.acknowledged)
        with Store(self.url) as opened:
            events = list(opened.events())
            counts = opened.counts()
            artifacts = opened.artifacts()
            losses = opened.losses()
        stored = Counter(event.attributes["n"] for event in events)
        assert acknowledged - set(stored) == set()
        assert max(stored.values()) == 1
        rows = Counter((e.organization_id, e.type, e.occurred_at.date()) for e in events)
        assert {(c.organization_id, c.type, c.day): c.count for c in counts} == rows
        about = Counter(event.artifact_id for event in events)
        assert {each.artifact_id: each.events for each in artifacts} == about
        assert losses == []
        assert list(segments_in(self.spool)) == []
        return len(events)

    def worst(self):
        """How long the slowest calls took, but for one in two hundred: seconds."""
        times = sorted(int(line) for line in self.times.read_bytes().split())
        return times[int(len(times) * 0.995)] / 1e6


@pytest.fixture
def program(url, tmp_path):
    running = Program(url, tmp_path)
    yield running
    if running.child.process.poll() is None:
        running.child.kill()


def wait_until(condition, seconds=30):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def size(url):
    try:
        with Store(url) as store:
            return store.size()
    except StoreError:
        return 0


def test_frozen_for_a_while(server, program, url):
    program.emit(200)
    wait_until(lambda: size(url) > 100)
    server.pause()
    program.emit(400)  # nobody is held up
    server.resume()
    before = len(program.child.acknowledged)
    wait_until(lambda: size(url) >= before)  # all of it comes, and by itself
    program.end()
    assert program.check() >= 600
    assert program.worst() < 0.1


def test_killed_and_started_again(server, program, url):
    program.emit(100)
    for _ in range(3):
        before = size(url)
        wait_until(lambda before=before: size(url) > before)
        server.kill()
        program.emit(100)
        server.start()
    before = len(program.child.acknowledged)
    wait_until(lambda: size(url) >= before)
    program.end()
    assert program.check() >= 400
    assert program.worst() < 0.1


def test_sessions_terminated_all_the_time(program, url):
    program.emit(100)
    killed = 0
    with psycopg.connect(url, autocommit=True) as connection:
        while killed < 8:
            program.emit(4)
            time.sleep(random.random() * 0.02)
            (count,) = connection.execute(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE application_name = 'sidelight' AND datname = current_database()"
            ).fetchone()
            killed += count
    before = len(program.child.acknowledged)
    wait_until(lambda: size(url) >= before)
    program.end()
    program.check()


def test_several_programs_and_relays_one_store(server, url, tmp_path):
    """Each with its own spool; one of them stopped for a while in the middle of what it does."""
    programs = []
    try:
        for n in range(3):
            (tmp_path / str(n)).mkdir()
            programs.append(Program(url, tmp_path / str(n)))
        for each in programs:
            each.emit(150)
        programs[0].child.process.send_signal(signal.SIGSTOP)
        for each in programs[1:]:
            each.emit(150)
        programs[0].child.process.send_signal(signal.SIGCONT)
        programs[0].emit(50)
    finally:
        for each in programs:
            each.child.process.send_signal(signal.SIGCONT)
            each.child.kill()
    for each in programs:
        each.end()
    with Store(url) as opened:
        events = list(opened.events())
        assert opened.size() == len(events)
        artifacts = {each.artifact_id: each.events for each in opened.artifacts()}
    numbers = Counter(event.attributes["n"] for event in events)
    for number in set().union(*(each.child.acknowledged for each in programs)):
        assert numbers[number] >= sum(number in each.child.acknowledged for each in programs)
    assert artifacts == Counter(event.artifact_id for event in events)
    for each in programs:
        assert list(segments_in(each.spool)) == []
