"""`sidelight relay`: deliver a spool once, or until a signal."""

import contextlib
import gc
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time

import pytest
from tests.support import version1
from tests.support.commands import (
    KILLED,
    Living,
    emit,
    end,
    of,
    relaying,
    running,
    sidelight,
    spawn,
    stored,
    wait_for,
)
from tests.support.crafted import GOOD, HEAD, LEDGER, moment, segment_in
from tests.support.disks import small_disk
from tests.support.stored import BACKENDS, record, store

from sidelight import Store
from sidelight.cli.spool.segments import read_spool
from sidelight.emission.emitter import EMITTER
from sidelight.spool.directory import segments_in


@pytest.fixture
def path(tmp_path):
    """A store with one event."""
    path = tmp_path / "events.db"
    store(f"sqlite:///{path}", [record()])
    return path


@pytest.mark.parametrize("backend", sorted(BACKENDS))
def test_once_upgrades_a_store_although_no_record_waits(backend, tmp_path, monkeypatch):
    monkeypatch.setenv("SIDELIGHT_SPOOL", str(tmp_path / "spool"))
    url = BACKENDS[backend](tmp_path)
    version1.create(url)
    refused = sidelight("events", *of(url))
    assert refused.code == 1
    assert f"run `sidelight relay --once --store {url}`, which upgrades the store" in refused.err
    sidelight("relay", "--once", *of(url))
    assert sidelight("events", *of(url)).code == 0


@pytest.fixture
def killed(path):
    """The same; a killed process has left 500 events."""
    emit(KILLED, path, ends=signal.SIGKILL)
    return path


def unreadable_record(path):
    """Leave a segment with a record that no relay can read; return the spool."""
    spool = spool_of(path)
    segment_in(spool, f"sqlite:///{path}", [HEAD])
    return spool


@pytest.mark.parametrize("way", ["once", "until a signal"])
def test_a_relay_counts_its_own_losses_once_and_in_the_spool_that_it_relays(way, path, tmp_path):
    unreadable_record(path)
    here = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")}
    if way == "once":
        end(spawn("relay", "--once", *of(path), env=here))
    else:
        with relaying(*of(path), env=here) as relay:
            wait_for(lambda: stored(path) > 1)
            relay.send_signal(signal.SIGTERM)
            end(relay)
    sidelight("relay", "--once", *of(path))
    with Store(f"sqlite:///{path}") as store:
        assert [(loss.reason, loss.count) for loss in store.losses()] == [("unreadable record", 1)]
    assert not (tmp_path / "state").exists()


@pytest.fixture
def nowhere():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}"


@contextlib.contextmanager
def locked(path):
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


def spool_of(path):
    return path.with_name(f"{path.name}-spool")


def losses_of(path):
    with Store(f"sqlite:///{path}") as opened:
        return {(loss.reason, loss.count) for loss in opened.losses()}


def once(*options):
    return sidelight("relay", "--once", *options)


# -- once ------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_orphaned_records_are_delivered_once(tmp_path, backend):
    url, spool = BACKENDS[backend](tmp_path), tmp_path / "spool"
    emit(KILLED, url, ends=signal.SIGKILL, SIDELIGHT_SPOOL=str(spool))
    said = once(*of(url), "--spool", spool)
    told = "noted that 1 process has ended; calls that were open then are abandoned\n"
    assert (said.code, said.err) == (0, told)
    assert re.search(r"store +500 +500", said.out)
    assert stored(url) == 500
    again = once("--json", *of(url), "--spool", spool)
    assert (again.code, again.json) == (
        0,
        [{"sink": "store", "delivered": 0, "events": 0, "ended": 0, "problem": None}],
    )
    assert list(spool.iterdir()) == []


def test_the_events_among_the_records_are_told(tmp_path):
    url, spool = f"sqlite:///{tmp_path / 'events.db'}", tmp_path / "spool"
    segment_in(spool, url, [LEDGER + moment(artifact_id=None)])
    said = once(*of(url), "--spool", spool)
    assert re.search(
        rf"records delivered +events among them[\s\S]*store +{GOOD + 1} +{GOOD}\n", said.out
    )


def test_the_records_name_their_store(tmp_path):
    one, two, spool = tmp_path / "one.db", tmp_path / "two.db", tmp_path / "spool"
    there = ("--spool", spool)
    emit(KILLED, one, ends=signal.SIGKILL, SIDELIGHT_SPOOL=str(spool))
    (delivery,) = once("--json", *there).json
    assert delivery["delivered"] == stored(one) == 500
    assert delivery["ended"] == 1
    said = once(*there)
    assert said.code == 1
    assert "store: no record in" in said.err
    assert "--store or SIDELIGHT_STORE" in said.err
    for each in (one, two):
        emit(KILLED, each, ends=signal.SIGKILL, SIDELIGHT_SPOOL=str(spool))
    assert "records for" in once(*there).err
    said = once(*there, *of(one))
    assert said.code == 1
    assert f"for the store sqlite:///{two}; name that with --store" in said.err
    assert once(*there, *of(two)).code == 0
    assert (stored(one), stored(two)) == (1000, 500)


def test_a_password_is_not_told_and_must_be_named_again(tmp_path, monkeypatch):
    spool = tmp_path / "spool"
    secret = BACKENDS["postgresql"](tmp_path).replace("sidelight@", "sidelight:geheim@")
    emit(KILLED, secret, ends=signal.SIGKILL, SIDELIGHT_SPOOL=str(spool))
    assert b"geheim" not in b"".join(path.read_bytes() for path in segments_in(spool))
    monkeypatch.delenv("SIDELIGHT_STORE", raising=False)
    said = once("--spool", spool)
    assert (said.code, "needs its password" in said.err) == (1, True)
    assert once("--spool", spool, "--store", secret).code == 0
    for command in (["doctor", "--spool", spool], ["events"], ["artifacts"], ["timeline", "x"]):
        said = sidelight(*command, "--store", secret)
        assert "geheim" not in said.out + said.err


def test_a_locked_store_is_named_and_loses_nothing(killed):
    with locked(killed):
        said = once(*of(killed))
    assert said.code == 1
    assert re.search("store: .*locked", said.err)
    assert re.search(r"left in .*events\.db-spool until store answers; .*: 500 records", said.err)
    said = once("--json", *of(killed))
    assert (said.code, said.json[0]["delivered"]) == (0, 500)


def test_a_dead_collector_keeps_nothing_from_the_store(path, nowhere):
    emit(KILLED, path, ends=signal.SIGKILL, OTEL_EXPORTER_OTLP_ENDPOINT=nowhere)
    said = once("--otlp", nowhere, *of(path))
    assert said.code == 1
    assert re.search(r"store +500", said.out)
    assert re.search("traces: .*does not answer", said.err)
    said = once(*of(path))
    assert said.code == 1
    assert "name the endpoint with --otlp or OTEL_EXPORTER_OTLP_ENDPOINT: 500 records" in said.err


def test_a_missing_spool_is_named(tmp_path):
    said = once(*of(tmp_path / "events.db"))
    assert said.code == 1
    assert "events.db-spool: there is no such directory; nothing was emitted yet" in said.err
    assert list(tmp_path.iterdir()) == []


# -- until a signal --------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT], ids=lambda s: s.name)
def test_a_relay_reads_living_segments_and_ends_cleanly(path, ending):
    with Living(path) as one, Living(path) as two, Living(path) as silent:
        for n, each in enumerate((one, two)):
            each.emit(n)
        with relaying(*of(path)) as relay:
            wait_for(lambda: stored(path) == 3)
            began = time.monotonic()
            relay.send_signal(ending)
            said = end(relay)
            assert said.code == 0, said
            assert time.monotonic() - began < 30
            assert re.search(r"store +\d+", said.out)
        for n, each in enumerate((one, two, silent)):
            each.emit(10 + n)
    assert once(*of(path)).code == 0
    assert stored(path) == 6


def test_a_relay_says_when_a_sink_stops_answering_and_answers_again(path):
    with contextlib.ExitStack() as stack:
        relay = stack.enter_context(relaying(*of(path)))
        with locked(path):
            emit(KILLED, path, ends=signal.SIGKILL)
            words = relay.stderr.readline()
            assert re.search("store: .*locked.*; the records are kept, and the relay tries", words)
        assert relay.stderr.readline() == "store: it answers again\n"
        wait_for(lambda: stored(path) == 501)


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


def test_a_relay_that_begins_without_descriptors_counts_what_it_delivers(killed):
    """The relay starts when there are descriptors; until then it has no sinks."""
    options = ("relay", *of(killed), "--otlp", "http://127.0.0.1:9")
    process = subprocess.Popen(
        [sys.executable, "-c", WITHOUT_DESCRIPTORS, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(lambda: stored(killed) == 501)
        process.send_signal(signal.SIGTERM)
        said = end(process)
        assert said.code == 0, said.err
        assert re.search(r"store +50\d", said.out), said.out  # and its own ledger
    finally:
        process.kill()
        process.communicate()


def test_records_of_the_last_moment_are_delivered_before_the_end(path):
    """In a pod the application ends first, then the relay; the volume vanishes with both."""
    with relaying(*of(path)) as relay:
        wait_for(lambda: any(segments_in(spool_of(path))))
        time.sleep(0.3)  # the housekeeping has looked once, and looks again later
        emit(KILLED, path, ends=signal.SIGKILL)
        relay.terminate()
        said = end(relay)
    assert said.code == 0, said
    assert stored(path) == 501
    assert re.search(r"store +50\d", said.out)


@pytest.mark.parametrize("how", [["--once"], []], ids=["once", "running"])
def test_lingering_until_no_application_writes(path, how):
    process = None
    with Living(path) as living:
        try:
            living.emit(1)
            process = spawn("relay", *how, "--linger", "300", *of(path))
            if not how:
                wait_for(lambda: stored(path) == 2)
                process.terminate()
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(2.0)
            living.emit(2)
            living.kill()
            assert end(process).code == 0
            assert stored(path) == 3
        finally:
            if process is not None:
                process.kill()
                process.communicate()


def test_relays_linger_neither_for_each_other_nor_for_longer_than_told(path):
    with relaying(*of(path)):
        wait_for(lambda: any(segments_in(spool_of(path))))
        began = time.monotonic()
        assert once("--linger", "600", *of(path)).code == 0
        with Living(path):
            assert once("--linger", "0.3", *of(path)).code == 0
        assert time.monotonic() - began < 300


@pytest.mark.slow
def test_several_relays_on_one_spool_and_two_of_them_are_killed(path):
    acknowledged = 1
    with contextlib.ExitStack() as stack:
        living = [stack.enter_context(Living(path)) for _ in range(3)]
        relays = [stack.enter_context(relaying(*of(path))) for _ in range(3)]
        for turn in range(3):
            for n in range(600):
                for each in living:
                    each.emit(turn * 10_000 + n)
                    acknowledged += 1

            def all_are_attended():
                found = read_spool(spool_of(path))
                return all(each.attended for each in found if each.meta["relay"] == "external")

            wait_for(all_are_attended)
            if turn < 2:
                relays.pop().kill()
                emit(KILLED, path, ends=signal.SIGKILL)
                acknowledged += 500
        wait_for(lambda: stored(path) == acknowledged)
        for each in relays:
            each.terminate()
            assert each.wait(60) == 0
    assert once(*of(path)).code == 0
    assert stored(path) == acknowledged
    with Store(f"sqlite:///{path}") as opened:
        ids = [event.event_id for event in opened.events()]
    assert len(ids) == len(set(ids)) == acknowledged


# -- damage that a relay finds ---------------------------------------------------------------


@pytest.fixture
def damaged(killed):
    (file,) = segments_in(spool_of(killed))
    content = bytearray(file.read_bytes())
    content[8000:8010] = b"xxxxxxxxxx"
    file.write_bytes(content)
    return killed


LOST = {("damaged stretch of the spool", 1)}


def test_relay_once_counts_the_damage(damaged):
    said = once("--json", *of(damaged))
    assert "damaged stretch of the spool: 1 time: " in said.err
    assert losses_of(damaged) == LOST
    assert [*segments_in(spool_of(damaged))] == []
    words = sidelight("doctor", *of(damaged)).words
    assert "damaged stretch of the spool: 1 time in 1 process" in words


def test_a_running_relay_counts_the_damage_once(damaged):
    with relaying(*of(damaged)) as relay:
        wait_for(lambda: stored(damaged) == 500 and losses_of(damaged))
        relay.terminate()
        end(relay)
    assert losses_of(damaged) == LOST


def test_damage_that_is_found_while_the_store_is_down_is_counted_later(damaged):
    with locked(damaged):
        assert once(*of(damaged)).code == 1
    EMITTER.losses.clear()  # as in another process
    assert once(*of(damaged)).code == 0
    assert stored(damaged) == 500
    assert losses_of(damaged) == LOST


# -- disks and limits ------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["once", "running"])
def test_a_relay_makes_room_on_a_full_disk(tmp_path, path, how):
    """The relay begins although it can make no segment of its own there."""
    with small_disk(tmp_path / "disk", 10) as disk:
        spool = disk.path / "spool"
        emit(KILLED, path, ends=signal.SIGKILL, SIDELIGHT_SPOOL=str(spool))
        disk.fill()
        if how == "once":
            assert once("--spool", spool, *of(path)).code == 0
        else:
            with relaying("--spool", spool, *of(path)) as relay:
                wait_for(lambda: stored(path) == 501)
                relay.terminate()
                assert end(relay).code == 0
            assert once("--spool", spool, *of(path)).code == 0  # a busy machine ends it earlier
        assert stored(path) == 501
        assert [*segments_in(spool)] == []
        gc.collect()  # the relay of this process has mapped a segment
        assert disk.free >= 1024 * 1024


def test_a_relay_keeps_the_spool_within_the_limit_of_its_writers(path, nowhere):
    """Here 8 MiB: segments that the store has are let go."""
    emit(
        """
        sidelight.configure(relay="external", spool_limit=8 * 1024 * 1024)
        for n in range(50_000):
            receive(f"order-{n}")
        """,
        path,
        OTEL_EXPORTER_OTLP_ENDPOINT=nowhere,
    )
    assert sum(each.stat().st_size for each in segments_in(spool_of(path))) >= 6 * 1024 * 1024
    with relaying("--otlp", nowhere, *of(path)):
        wait_for(lambda: "spool full: telemetry let go" in {why for why, _ in losses_of(path)})


def test_a_relay_names_the_outboxes_that_programs_leave_to_it(path, tmp_path):
    """Afterwards nothing in the spool names them, so that `doctor` could not."""
    shop = f"sqlite:///{tmp_path / 'shop.db'}"
    script = "sidelight.configure(relay='external', outboxes=[os.environ['SHOP']]); receive('1')"
    emit(script, path, SHOP=shop)
    words = f"leave the outbox {shop} to a relay, and this relay does not drain it: "
    command = f"`sidelight relay --outbox {shop} --store sqlite:///{path}`"
    assert f"{words}{command}" in sidelight("relay", "--once", *of(path)).err
    assert words not in sidelight("relay", "--once", *of(path)).err
    emit(script, path, SHOP=shop)
    sidelight("outbox", "create", shop)
    assert words not in sidelight("relay", "--once", "--outbox", shop, *of(path)).err


def test_a_lasting_relay_names_such_an_outbox(path, tmp_path):
    shop = f"sqlite:///{tmp_path / 'shop.db'}"
    script = """
        sidelight.configure(relay="external", outboxes=[os.environ["SHOP"]])
        receive("1")
        print("ready", flush=True)
        sys.stdin.read()
        """
    with running(script, path, SHOP=shop), relaying(*of(path)) as relay:
        assert f"leave the outbox {shop} to a relay" in relay.stderr.readline()
