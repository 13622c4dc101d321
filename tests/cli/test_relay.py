"""`sidelight relay` and `sidelight tail`: they run while others emit, and end when told to."""

import contextlib
import json
import os
import re
import select
import signal
import socket
import sqlite3
import subprocess
import sys
import time

import pytest
from tests.support.commands import KILLED, Living, emit, end, of, sidelight, spawn, stored, wait_for
from tests.support.disks import small_disk

from sidelight import Store
from sidelight.cli.spool.segments import look_at
from sidelight.emission.emitter import EMITTER
from sidelight.spool.directory import segments_in

# -- tail ------------------------------------------------------------------------------------


def read_lines(stream, count, seconds=20.0):
    """So many lines of what a process says, as it says them."""
    lines, rest, until = [], b"", time.monotonic() + seconds
    while len(lines) < count and time.monotonic() < until:
        if select.select([stream], [], [], 0.1)[0]:
            data = os.read(stream.fileno(), 1 << 16)
            if not data:
                break
            *whole, rest = (rest + data).split(b"\n")
            lines += [line.decode() for line in whole]
    return lines


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["lines", "json"])
def test_tail_follows_until_it_is_interrupted(tmp_path, form):
    path = tmp_path / "events.db"
    emit('receive("order-1")\nassert sidelight.flush(60)', path)
    process = spawn("tail", *form, *of(path))
    try:
        (first,) = read_lines(process.stdout, 1)
        assert "order-1" in first
        emit('receive("order-2")\nreceive("order-3", "north")\nassert sidelight.flush(60)', path)
        second, third = read_lines(process.stdout, 2)
        assert "order-2" in second
        assert "order-3" in third
        assert "north" in third
        if form:
            assert json.loads(third)["type"] == "order_received"
        process.send_signal(signal.SIGINT)
        said = end(process)
        assert (said.code, said.out.strip(), said.err) == (0, "", "")
    finally:
        process.kill()
        process.communicate()


# -- relay -----------------------------------------------------------------------------------


def test_relay_once_delivers_what_the_dead_have_left(tmp_path):
    path = tmp_path / "events.db"
    emit(KILLED, path, ends=signal.SIGKILL)
    said = sidelight("relay", "--once", *of(path))
    assert said.code == 0, said
    assert re.search(r"store +500", said.out)
    assert len(sidelight("events", "--json", *of(path)).json) == 500
    again = sidelight("relay", "--once", "--json", *of(path))
    assert again.code == 0
    assert again.json == [{"sink": "store", "delivered": 0, "problem": None}]
    assert list((tmp_path / "events.db-spool").iterdir()) == []


def test_the_spool_itself_says_which_store(tmp_path):
    path = tmp_path / "events.db"
    emit(KILLED, path, ends=signal.SIGKILL, SIDELIGHT_SPOOL=str(tmp_path / "spool"))
    said = sidelight("relay", "--once", "--json", "--spool", tmp_path / "spool")
    assert said.code == 0, said
    assert said.json[0]["delivered"] == 500
    with Store(f"sqlite:///{path}") as store:
        assert store.size() == 500
    said = sidelight("relay", "--once", "--spool", tmp_path / "spool")
    assert said.code == 1
    assert "store: nothing in" in said.err
    assert "--store or SIDELIGHT_STORE" in said.err


def test_records_for_another_store_are_left_for_it(tmp_path):
    spool = {"SIDELIGHT_SPOOL": str(tmp_path / "spool")}
    emit(KILLED, tmp_path / "one.db", ends=signal.SIGKILL, **spool)
    emit(KILLED, tmp_path / "two.db", ends=signal.SIGKILL, **spool)
    said = sidelight("relay", "--once", "--spool", tmp_path / "spool")
    assert said.code == 1
    assert "records for" in said.err
    said = sidelight("relay", "--once", "--spool", tmp_path / "spool", *of(tmp_path / "one.db"))
    assert said.code == 1
    assert f"for the store sqlite:///{tmp_path / 'two.db'}; name that with --store" in said.err
    said = sidelight("relay", "--once", "--spool", tmp_path / "spool", *of(tmp_path / "two.db"))
    assert said.code == 0, said
    for name in ("one.db", "two.db"):
        with Store(f"sqlite:///{tmp_path / name}") as store:
            assert store.size() == 500


def test_a_locked_store_is_named_and_nothing_is_lost(tmp_path):
    path = tmp_path / "events.db"
    emit(KILLED, path, ends=signal.SIGKILL)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        said = sidelight("relay", "--once", *of(path))
    assert said.code == 1
    assert "store: " in said.err
    assert "locked" in said.err
    assert re.search(r"left in .*events\.db-spool until store answers; .*: 500 records", said.err)
    said = sidelight("relay", "--once", "--json", *of(path))
    assert (said.code, said.json[0]["delivered"]) == (0, 500)


def test_a_dead_collector_keeps_nothing_from_the_store(tmp_path):
    path = tmp_path / "events.db"
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{unused.getsockname()[1]}"
    emit(KILLED, path, ends=signal.SIGKILL, OTEL_EXPORTER_OTLP_ENDPOINT=nowhere)
    said = sidelight("relay", "--once", "--otlp", nowhere, *of(path))
    assert said.code == 1
    assert re.search(r"store +500", said.out)
    assert "traces: " in said.err
    assert "does not answer" in said.err
    said = sidelight("relay", "--once", *of(path))
    assert said.code == 1
    assert "name the endpoint with --otlp or OTEL_EXPORTER_OTLP_ENDPOINT: 500 records" in said.err


def test_relay_of_no_spool(tmp_path):
    said = sidelight("relay", "--once", *of(tmp_path / "events.db"))
    assert said.code == 1
    assert "events.db-spool: it is not there; nothing was emitted yet" in said.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT], ids=lambda s: s.name)
def test_relay_reads_along_with_all_the_living_and_ends_cleanly(tmp_path, ending):
    path = tmp_path / "events.db"
    with contextlib.ExitStack() as stack:
        living = [Living(path) for _ in range(3)]
        for each in living:
            stack.callback(each.kill)
        silent = living.pop()  # it has not emitted when the relay ends
        for n, each in enumerate(living):
            each.emit(n)
        process = spawn("relay", *of(path))
        stack.callback(process.communicate)
        stack.callback(process.kill)
        wait_for(lambda: stored(path) == 2)
        began = time.monotonic()
        process.send_signal(ending)
        said = end(process)
        assert said.code == 0, said
        assert time.monotonic() - began < 3.5
        assert re.search(r"store +\d+", said.out)
        assert "relaying" in said.err
        for n, each in enumerate([*living, silent]):
            each.emit(10 + n)
    assert sidelight("relay", "--once", *of(path)).code == 0
    assert stored(path) == 5


def test_a_relay_says_when_a_sink_ceases_to_answer_and_answers_again(tmp_path):
    path = tmp_path / "events.db"
    emit('receive("order-1")\nassert sidelight.flush(60)', path)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        emit(KILLED, path, ends=signal.SIGKILL)
        process = spawn("relay", *of(path))
        try:
            began, failing = read_lines(process.stderr, 2)
            assert "relaying" in began
            assert re.search("store: .*locked.*; what it has not taken is kept", failing)
            other.execute("ROLLBACK")
            assert read_lines(process.stderr, 1) == ["store: it answers again"]
            wait_for(lambda: stored(path) == 501)
        finally:
            process.terminate()
            process.communicate(timeout=10)


# -- what a relay finds is told ---------------------------------------------------------------


WITHOUT_DESCRIPTORS = """
import resource, sys, threading
from sidelight.cli.app import main
from sidelight.runtime.process import Runtime
limits, opening = resource.getrlimit(resource.RLIMIT_NOFILE), Runtime._open
def then_no_more(self, settings):
    spool = opening(self, settings)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    threading.Timer(0.5, resource.setrlimit, (resource.RLIMIT_NOFILE, limits)).start()
    return spool
Runtime._open = then_no_more
main()
"""


def test_a_relay_begun_without_descriptors_tells_at_its_end_what_it_delivered(tmp_path):
    """It starts when there are some; until then it has no sinks."""
    path = tmp_path / "events.db"
    emit(KILLED, path, ends=signal.SIGKILL)
    otlp = ("--otlp", "http://127.0.0.1:9")
    process = subprocess.Popen(
        [sys.executable, "-c", WITHOUT_DESCRIPTORS, "relay", *of(path), *otlp],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(lambda: stored(path) == 500)
        process.send_signal(signal.SIGTERM)
        said = end(process)
        assert said.code == 0, said.err
        assert re.search(r"store +50\d", said.out), said.out  # and what it tells of itself
    finally:
        process.kill()
        process.communicate()


def losses_of(path):
    with Store(f"sqlite:///{path}") as store:
        return {(loss.reason, loss.count) for loss in store.losses()}


def damage(path):
    (file,) = segments_in(path.with_name(f"{path.name}-spool"))
    content = bytearray(file.read_bytes())
    content[8000:8010] = b"xxxxxxxxxx"
    file.write_bytes(content)


def test_the_damage_that_relay_once_finds_is_among_the_losses(tmp_path):
    path = tmp_path / "events.db"
    emit(KILLED, path, ends=signal.SIGKILL)
    damage(path)
    said = sidelight("relay", "--once", "--json", *of(path))
    assert "damaged stretch of the spool: 1 time: " in said.err
    assert losses_of(path) == {("damaged stretch of the spool", 1)}
    assert [*segments_in(path.with_name("events.db-spool"))] == []
    assert (
        "damaged stretch of the spool: 1 time in 1 process" in sidelight("doctor", *of(path)).words
    )


def test_a_relay_that_runs_tells_it_once(tmp_path):
    path = tmp_path / "events.db"
    emit(KILLED, path, ends=signal.SIGKILL)
    damage(path)
    process = spawn("relay", *of(path))
    try:
        wait_for(lambda: stored(path) == 499 and losses_of(path))
    finally:
        process.terminate()
        end(process)
    assert losses_of(path) == {("damaged stretch of the spool", 1)}


def test_what_is_found_while_the_store_is_down_is_told_later(tmp_path):
    path = tmp_path / "events.db"
    emit('receive("first")\nassert sidelight.flush(60)', path)
    emit(KILLED, path, ends=signal.SIGKILL)
    damage(path)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert sidelight("relay", "--once", *of(path)).code == 1
    EMITTER.losses.clear()  # another process
    said = sidelight("relay", "--once", *of(path))
    assert said.code == 0, said
    assert stored(path) == 500
    assert losses_of(path) == {("damaged stretch of the spool", 1)}


# -- the end of a relay, and several at once -------------------------------------------------


def test_what_an_application_left_at_the_last_moment_is_delivered_before_the_end(tmp_path):
    """In a pod the application ends, then the relay is told to: what is left then would be lost."""
    path = tmp_path / "events.db"
    emit('receive("first")\nassert sidelight.flush(60)', path)
    process = spawn("relay", *of(path))
    try:
        wait_for(lambda: any(shown_segments(path)))
        read_lines(process.stderr, 1)
        time.sleep(0.3)  # the keeper's first look is over, its second is to come
        emit(KILLED, path, ends=signal.SIGKILL)
        process.terminate()
        said = end(process)
        assert said.code == 0, said
        assert stored(path) == 501
        assert re.search(r"store +50\d", said.out)
    finally:
        process.kill()
        process.communicate()


def shown_segments(path):
    return [*segments_in(path.with_name(f"{path.name}-spool"))]


@pytest.mark.parametrize("how", [["--once"], []], ids=["once", "running"])
def test_lingering_until_no_application_writes(tmp_path, how):
    path = tmp_path / "events.db"
    emit('receive("first")\nassert sidelight.flush(60)', path)
    living = Living(path)
    process = None
    try:
        living.emit(1)
        process = spawn("relay", *how, "--linger", "60", *of(path))
        if not how:
            wait_for(lambda: stored(path) == 2)
            process.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2.0)
        living.emit(2)
        living.kill()
        began = time.monotonic()
        assert end(process).code == 0
        assert time.monotonic() - began < 10
        assert stored(path) == 3
    finally:
        living.kill()
        if process is not None:
            process.kill()
            process.communicate()


def test_relays_do_not_wait_for_each_other_and_no_longer_than_they_were_told(tmp_path):
    path = tmp_path / "events.db"
    emit('receive("first")\nassert sidelight.flush(60)', path)
    other = spawn("relay", *of(path))
    living = None
    try:
        wait_for(lambda: any(shown_segments(path)))
        began = time.monotonic()
        assert sidelight("relay", "--once", "--linger", "60", *of(path)).code == 0
        assert time.monotonic() - began < 30
        living = Living(path)
        assert sidelight("relay", "--once", "--linger", "0.3", *of(path)).code == 0
    finally:
        other.terminate()
        end(other)
        if living is not None:
            living.kill()


@pytest.mark.slow
def test_several_relays_on_one_spool_and_one_of_them_is_killed(tmp_path):
    path, spool = tmp_path / "events.db", tmp_path / "events.db-spool"
    emit('receive("first")\nassert sidelight.flush(60)', path)
    acknowledged = 1
    with contextlib.ExitStack() as stack:
        living = [Living(path) for _ in range(3)]
        for each in living:
            stack.callback(each.kill)
        relays = [spawn("relay", *of(path)) for _ in range(3)]
        for each in relays:
            stack.callback(each.communicate)
            stack.callback(each.kill)
        for turn in range(3):
            for n in range(600):
                for each in living:
                    each.emit(turn * 10_000 + n)
                    acknowledged += 1
            wait_for(
                lambda: all(s.attended for s in look_at(spool) if s.meta["relay"] == "external"), 30
            )
            if turn < 2:
                relays.pop().kill()
                emit(KILLED, path, ends=signal.SIGKILL)
                acknowledged += 500
        wait_for(lambda: stored(path) == acknowledged, 30)
        for each in relays:
            each.terminate()
            assert each.wait(10) == 0
    assert sidelight("relay", "--once", *of(path)).code == 0
    assert stored(path) == acknowledged
    with Store(f"sqlite:///{path}") as store:
        ids = [event.event_id for event in store.events()]
    assert len(ids) == len(set(ids)) == acknowledged


# -- disks and limits ------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["once", "running"])
def test_a_relay_makes_room_on_a_disk_that_is_full(tmp_path, how):
    """It can make no segment of its own there, and must begin all the same."""
    path = tmp_path / "events.db"
    emit('receive("first")\nassert sidelight.flush(60)', path)
    with small_disk(tmp_path / "disk", 10) as disk:
        spool = disk.path / "spool"
        emit(KILLED, path, ends=signal.SIGKILL, SIDELIGHT_SPOOL=str(spool))
        disk.fill()
        if how == "once":
            said = sidelight("relay", "--once", "--spool", spool, *of(path))
            assert said.code == 0, said
        else:
            process = spawn("relay", "--spool", spool, *of(path))
            try:
                wait_for(lambda: stored(path) == 501)
            finally:
                process.terminate()
                said = end(process)
            assert said.code == 0, said
        assert stored(path) == 501
        assert [*segments_in(spool)] == []
        assert disk.free >= 1024 * 1024


def test_a_relay_holds_the_spool_within_what_its_writers_may(tmp_path):
    """Here 8 MiB: telemetry that the store has is let go for them."""
    path = tmp_path / "events.db"
    emit('receive("first")\nassert sidelight.flush(60)', path)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{unused.getsockname()[1]}"
        emit(
            """
            sidelight.configure(relay="external", spool_limit=8 * 1024 * 1024)
            for n in range(50_000):
                receive(f"order-{n}")
            """,
            path,
            OTEL_EXPORTER_OTLP_ENDPOINT=nowhere,
        )
        spool = path.with_name("events.db-spool")
        assert sum(each.stat().st_size for each in segments_in(spool)) >= 6 * 1024 * 1024
        process = spawn("relay", "--otlp", nowhere, *of(path))
        try:
            wait_for(
                lambda: any(r == "spool full: telemetry let go" for r, _ in losses_of(path)), 30
            )
        finally:
            process.kill()
            process.communicate()
