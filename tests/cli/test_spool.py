"""`sidelight spool`: what lies in a spool, whose it is, and what was set aside, delivered later."""

import contextlib
import http.server
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import threading
import time

import pytest
from tests.support.commands import KILLED, Living, emit, end, of, sidelight, spawn, stored, wait_for

from sidelight.cli.spool import segments
from sidelight.record.format import FRAME_MAGIC
from sidelight.spool.directory import segments_in
from sidelight.spool.header import PAGE
from sidelight.spool.segment import Segment

POISON = """
sidelight.configure(relay="external")
for n in range(10):
    receive(f"order-{n}", "north", size=n)
os.kill(os.getpid(), signal.SIGKILL)
"""


def spool_of(path):
    return path.with_name(f"{path.name}-spool")


def shown(path, kind):
    said = sidelight("spool", "--json", *of(path))
    assert said.code == 0, said
    return [each for each in said.json if each["kind"] == kind]


def quarantined(path):
    return sidelight("spool", "quarantined", "--json", *of(path)).json


def refuse(path, artifact):
    """From now on the store refuses the events of an artifact."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(
            f"CREATE TRIGGER no_{artifact.replace('-', '_')} BEFORE INSERT ON events"
            f" WHEN NEW.artifact_id = '{artifact}'"
            f" BEGIN SELECT RAISE(ABORT, '{artifact} is not welcome'); END"
        )


def welcome(path, artifact):
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"DROP TRIGGER no_{artifact.replace('-', '_')}")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "events.db"


@pytest.fixture
def refused(path):
    """A store that has eight of ten events; two of them it would not take."""
    emit('receive("first")\nassert sidelight.flush(60)', path)
    for artifact in ("order-3", "order-7"):
        refuse(path, artifact)
    emit(POISON, path, ends=signal.SIGKILL, OTEL_SERVICE_NAME="shop")
    said = sidelight("relay", "--once", *of(path))
    assert "refused by store: 2 times" in said.err
    assert stored(path) == 9
    return path


# -- segments --------------------------------------------------------------------------------


def test_what_a_dead_process_left(path):
    emit(KILLED, path, ends=signal.SIGKILL, OTEL_SERVICE_NAME="shop")
    spool, segment = sidelight("spool", "--json", *of(path)).json
    assert spool["kind"] == "spool"
    assert spool["directory"] == str(spool_of(path))
    assert (spool["segments"], spool["bytes"]) == (1, 1024 * 1024)
    assert spool["limit"] == 1024**3
    assert segment["kind"] == "segment"
    assert (segment["service"], segment["alive"], segment["attended"]) == ("shop", False, False)
    assert segment["host"] == os.uname().nodename
    assert 0 < segment["used"] < segment["size"] == 1024 * 1024
    behind = segment["behind"]["store"]
    assert behind["records"] == 500
    assert 500 * 50 < behind["bytes"] < segment["used"]
    assert behind["oldest_at"].startswith("20")
    said = sidelight("spool", *of(path), columns=200)
    assert re.search(r"shop \d+ on \S+ ended .* 500 \([\d.]+ kB\), [\d.]+ \S+ old", said.words)
    assert "1 segment, 1.05 MB of 1.07 GB allowed" in said.words


def test_the_living_and_who_delivers_for_them(path):
    emit('receive("first")\nassert sidelight.flush(60)', path)
    living = Living(path)
    try:
        living.emit(1)
        (segment,) = shown(path, "segment")
        assert (segment["alive"], segment["attended"]) == (True, False)
        assert segment["behind"]["store"]["records"] == 1
        assert "alive, no relay reads it" in sidelight("spool", *of(path), columns=200).words
        relay = spawn("relay", *of(path))
        try:
            wait_for(lambda: stored(path) == 2)
            segment = next(s for s in shown(path, "segment") if s["relay"] == "external")
            assert (segment["alive"], segment["attended"]) == (True, True)
            assert segment["behind"]["store"]["records"] == 0
            assert "alive, a relay reads it" in sidelight("spool", *of(path), columns=200).words
            assert "alive, spare" in sidelight("spool", *of(path), columns=200).words
        finally:
            relay.terminate()
            end(relay)
    finally:
        living.kill()
    segment = next(s for s in shown(path, "segment") if s["relay"] == "external")
    assert (segment["alive"], segment["attended"]) == (False, False)


def test_a_full_segment_of_a_living_process_is_not_taken_for_a_dead_ones(path):
    living = Living(path)
    try:
        for n in range(7500):
            living.emit(n)
        first, second = shown(path, "segment")
        assert first["instance"] == second["instance"]
        assert [first["written"], second["written"]] == [False, True]
        assert [first["alive"], second["alive"]] == [True, True]
        assert first["used"] > 0.99 * first["size"]
        assert "alive, has left it" in sidelight("spool", *of(path), columns=200).words
        assert "which has ended" not in sidelight("doctor", *of(path)).words
    finally:
        living.kill()


def test_each_sink_lags_by_itself(path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{unused.getsockname()[1]}"
        emit(KILLED, path, ends=signal.SIGKILL, OTEL_EXPORTER_OTLP_ENDPOINT=nowhere)
    sidelight("relay", "--once", *of(path))
    (segment,) = shown(path, "segment")
    assert {sink: each["records"] for sink, each in segment["behind"].items()} == {
        "store": 0,
        "traces": 500,
        "logs": 500,
    }


def test_it_changes_nothing_and_takes_no_lock(path, monkeypatch):
    emit(KILLED, path, ends=signal.SIGKILL)
    (file,) = segments_in(spool_of(path))
    Segment.adopt(file).close()  # which gives back what was not used
    before = file.read_bytes()
    looked = []

    class Scanner(segments.Scanner):
        def batch(self, limit):
            with contextlib.closing(Segment.adopt(file)) as adopted:  # as a relay would just then
                looked.append(adopted is not None)
            return super().batch(limit)

    monkeypatch.setattr(segments, "Scanner", Scanner)
    assert shown(path, "segment")[0]["behind"]["store"]["records"] == 500
    assert set(looked) == {True}
    assert file.read_bytes() == before


def test_damage_is_shown(path):
    emit(KILLED, path, ends=signal.SIGKILL)
    (file,) = segments_in(spool_of(path))
    content = bytearray(file.read_bytes())
    content[-100:-90] = b"xxxxxxxxxx"  # behind all records
    file.write_bytes(content)
    assert shown(path, "segment")[0]["damaged"] == 22
    assert "22 bytes of" in sidelight("spool", *of(path), columns=200).words
    content[:PAGE] = os.urandom(PAGE)
    file.write_bytes(content)
    (segment,) = shown(path, "segment")
    assert (segment["pid"], segment["service"]) == (None, None)
    assert segment["behind"]["store"]["records"] == 500
    assert "process (unknown)" in sidelight("spool", *of(path), columns=200).words


def test_a_name_that_tells_no_time(path):
    emit(KILLED, path, ends=signal.SIGKILL)
    (file,) = segments_in(spool_of(path))
    file.rename(file.with_name("mine.segment"))
    assert shown(path, "segment")[0]["created_at"] is None
    later = file.with_name(f"{time.time_ns() + 3600 * 10**9:016x}-12345678.segment")
    file.with_name("mine.segment").rename(later)
    assert re.search(r"in (1 h|59 min)", sidelight("spool", *of(path), columns=200).words)


def test_what_takes_long_shows_how_far_it_is(path, monkeypatch):
    emit(KILLED, path, ends=signal.SIGKILL)
    assert sidelight("spool", *of(path)).err == ""
    monkeypatch.setattr("sidelight.cli.output._WORTH_A_WORD", 0.0)
    said = sidelight("spool", "--json", *of(path))
    assert "looking at segments: 0 of 1" in said.err
    assert len(said.json) == 2


def test_there_is_no_spool(path):
    said = sidelight("spool", *of(path))
    assert said.code == 1
    assert "events.db-spool: it is not there; nothing was emitted yet" in said.err


def test_a_closed_directory_is_named(path, monkeypatch):
    emit(KILLED, path, ends=signal.SIGKILL)

    def forbidden(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Segment, "look", forbidden)
    said = sidelight("spool", *of(path))
    assert said.code == 1
    assert "Permission denied; ask its owner" in said.err


# -- what was set aside ----------------------------------------------------------------------


def test_what_was_refused_is_listed_with_its_reason(refused):
    for each, artifact in zip(quarantined(refused), ("order-3", "order-7"), strict=True):
        assert each["reason"] == "refused by store"
        assert each["problem"] == f"{artifact} is not welcome"
        assert (each["refused_by"], each["missing_in"]) == ("store", ["store"])
        assert (each["type"], each["artifact_id"]) == ("order_received", artifact)
        assert each["attributes"] == {"size": int(artifact[-1])}
        assert each["writer"]["resource"]["service.name"] == "shop"
        assert each["writer"]["limits"]
        assert each["occurred_at"] < each["set_aside_at"]
    said = sidelight("spool", "quarantined", *of(refused), columns=160)
    assert re.search(r"order_received +order-3 .* refused by store: order-3 is not", said.words)
    said = sidelight("spool", *of(refused))
    assert "set aside: 2 entries" in said.words
    assert "sidelight spool replay" in said.err


def test_replay_delivers_exactly_once_and_says_what_stays(refused, tmp_path):
    first, second = quarantined(refused)
    copy = tmp_path / "copy"
    shutil.copytree(spool_of(refused) / "quarantine", copy)

    said = sidelight("spool", "replay", *of(refused))
    assert said.code == 1
    assert "2 entries" not in said.err  # each has a reason of its own
    assert f"1 entry stays ({first['id'][:8]}): refused again: order-3 is not welcome" in said.err
    assert [each["id"] for each in quarantined(refused)] == [first["id"], second["id"]]

    welcome(refused, "order-7")
    said = sidelight("spool", "replay", "--json", *of(refused))
    assert said.code == 1
    assert said.json == [
        {
            "identity": first["id"],
            "delivered": {},
            "stays": "refused again: order-3 is not welcome",
        },
        {"identity": second["id"], "delivered": {"store": 1}, "stays": ""},
    ]
    assert stored(refused) == 10
    (event,) = sidelight("events", "--artifact", "order-7", "--json", *of(refused)).json
    assert event["event_id"] == second["event_id"]

    welcome(refused, "order-3")
    said = sidelight("spool", "replay", first["id"][:4], *of(refused))
    assert said.code == 0, said
    assert "store: 1 record delivered" in said.out
    assert quarantined(refused) == []

    shutil.copytree(copy, spool_of(refused) / "quarantine", dirs_exist_ok=True)
    assert len(quarantined(refused)) == 2
    assert sidelight("spool", "replay", *of(refused)).code == 0
    assert stored(refused) == 11
    counts = sidelight("counts", "--by", "type", "--json", *of(refused)).json
    assert counts == [{"type": "order_received", "count": 11}]
    assert len(sidelight("events", "--json", *of(refused)).json) == 11


def test_a_store_that_does_not_answer_keeps_it_all(refused):
    welcome(refused, "order-3")
    welcome(refused, "order-7")
    before = quarantined(refused)
    with contextlib.closing(sqlite3.connect(refused, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        said = sidelight("spool", "replay", *of(refused))
        assert time.monotonic() - began < 10
    assert said.code == 1
    assert re.search(r"2 entries stay .*: .* does not answer: .*lock", said.err)
    assert quarantined(refused) == before
    assert sidelight("spool", "replay", *of(refused)).code == 0


def test_it_goes_only_to_the_store_that_it_was_meant_for(refused, tmp_path):
    other = tmp_path / "other.db"
    said = sidelight("spool", "replay", "--spool", spool_of(refused), *of(other))
    assert said.code == 1
    assert f"for the store sqlite:///{refused}; name that with --store" in said.err
    welcome(refused, "order-3")
    welcome(refused, "order-7")
    assert sidelight("spool", "replay", "--spool", spool_of(refused)).code == 0
    assert stored(refused) == 11


@pytest.fixture
def endpoint():
    """An HTTP server that answers requests with anything in them with ``statuses``."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status = statuses.get(self.path, 200) if body else 200
            taken.extend([self.path] if body and status == 200 else [])
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    statuses, taken = {}, []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", statuses, taken
        server.shutdown()
        thread.join()


def test_what_a_collector_refused_goes_to_it_alone(path, endpoint):
    url, statuses, taken = endpoint
    statuses["/v1/traces"] = 400
    emit(POISON, path, ends=signal.SIGKILL, OTEL_EXPORTER_OTLP_ENDPOINT=url)
    said = sidelight("relay", "--once", "--otlp", url, *of(path))
    assert "refused by traces: 10 times" in said.err
    assert stored(path) == 10
    assert {each["refused_by"] for each in quarantined(path)} == {"traces"}
    said = sidelight("spool", "replay", *of(path))
    assert said.code == 1
    assert "for traces; name the endpoint with --otlp or OTEL_EXPORTER_OTLP_ENDPOINT" in said.err
    said = sidelight("spool", "replay", "--otlp", url, *of(path))
    assert said.code == 1
    assert re.search("10 entries stay .*: refused again: it answered 400", said.err)
    statuses.clear()
    taken.clear()
    said = sidelight("spool", "replay", "--otlp", url, *of(path))
    assert said.code == 0, said
    assert taken == ["/v1/traces"] * 10
    assert "traces: 10 records delivered" in said.out
    assert quarantined(path) == []


def hit(file, record, at, what=b"zz"):
    """Damage the ``record``-th frame of a segment, ``at`` bytes behind its beginning."""
    content = bytearray(file.read_bytes())
    place = PAGE
    for _ in range(record):
        place = content.index(FRAME_MAGIC, place + 1)
    content[place + at : place + at + len(what)] = what
    file.write_bytes(content)


def test_what_is_whole_in_a_damaged_stretch_is_delivered(path, endpoint):
    url, _, taken = endpoint
    emit(KILLED, path, ends=signal.SIGKILL, OTEL_EXPORTER_OTLP_ENDPOINT=url)
    (file,) = segments_in(spool_of(path))
    hit(file, 400, 40)  # a payload
    hit(file, 302, 41)  # and another
    hit(file, 301, 0)  # the magic of the one before it
    hit(file, 300, 0)  # and of the one before that
    hit(file, 20, 4)  # a length
    said = sidelight("relay", "--once", "--otlp", url, *of(path))
    assert "damaged stretch of the spool: 4 times" in said.err
    assert stored(path) == 495
    assert sorted(each["whole_records"] for each in quarantined(path)) == [0, 0, 1, 2]
    assert {tuple(each["missing_in"]) for each in quarantined(path)} == {
        ("logs", "store", "traces")
    }

    said = sidelight("spool", "replay", *of(path))
    assert said.code == 1
    assert "store: 3 records delivered" in said.out
    assert "name the endpoint with --otlp" in said.err
    assert "these bytes hold no whole record" in said.err
    assert stored(path) == 498

    taken.clear()
    said = sidelight("spool", "replay", "--otlp", url, *of(path))
    assert said.code == 1
    assert "traces: 3 records delivered" in said.words
    assert sorted(taken) == ["/v1/logs"] * 3 + ["/v1/traces"] * 3
    assert [each["whole_records"] for each in quarantined(path)] == [0, 0]
    assert stored(path) == 498

    said = sidelight("spool", "replay", "--otlp", url, *of(path))
    assert "2 entries stay" in said.err
    assert "delivered" not in said.out
    artifacts = sidelight("artifacts", "--limit", "1000", "--json", *of(path)).json
    assert {each["events"] for each in artifacts} == {1}


def test_what_cannot_be_read_says_so(path):
    emit(
        """
        sidelight.configure(relay="external")
        from sidelight.record.format import frame
        from sidelight.runtime.process import RUNTIME
        RUNTIME.spool.write(frame(b"not a record"))
        """,
        path,
    )
    sidelight("relay", "--once", *of(path))
    (each,) = quarantined(path)
    assert each["reason"] == "unreadable record"
    assert each["payload"] == "bm90IGEgcmVjb3Jk"
    said = sidelight("spool", "replay", *of(path))
    assert said.code == 1
    assert "it cannot be replayed: it is no record that this sidelight can read" in said.err
    (file,) = (spool_of(path) / "quarantine").iterdir()
    file.write_bytes(b"rubbish")
    assert sidelight("spool", "quarantined", *of(path)).words.endswith("its file is damaged")
    said = sidelight("spool", "replay", *of(path))
    assert "it cannot be replayed: its file is damaged" in said.err
    assert sidelight("spool", "discard", each["id"], *of(path)).code == 0
    assert quarantined(path) == []


def test_discard_deletes_what_is_named(refused):
    first, second = quarantined(refused)
    said = sidelight("spool", "discard", *of(refused))
    assert said.code == 1
    assert "name some, or say --all" in said.err
    said = sidelight("spool", "discard", first["id"][:6], *of(refused))
    assert (said.code, said.err.strip()) == (0, "1 entry deleted")
    assert quarantined(refused) == [second]
    assert sidelight("spool", "discard", "--all", *of(refused)).code == 0
    assert quarantined(refused) == []
    said = sidelight("spool", "quarantined", *of(refused))
    assert (said.code, said.err.strip()) == (0, "nothing was set aside")
    assert sidelight("spool", "replay", *of(refused)).err.strip() == "nothing was set aside"


def test_ids_that_name_none_or_several(refused):
    said = sidelight("spool", "replay", "zzz", *of(refused))
    assert said.code == 1
    assert "no id begins with 'zzz'; see `sidelight spool quarantined`" in said.err
    for each in quarantined(refused):
        file = spool_of(refused) / "quarantine" / f"{each['id']}.msgpack"
        file.rename(file.with_name(f"aa{file.name[2:]}"))
    said = sidelight("spool", "quarantined", "aa", *of(refused))
    assert "2 entries have ids that begin with 'aa'" in said.err


def test_options_before_a_subcommand_are_not_swallowed(refused):
    said = sidelight("spool", "--spool", spool_of(refused), "quarantined")
    assert said.code == 2
    assert "write the options behind `quarantined`" in said.err


def test_what_cannot_be_changed_is_named(refused, monkeypatch):
    def read_only(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("sidelight.spool.quarantine.Quarantine.discard", read_only)
    said = sidelight("spool", "discard", "--all", *of(refused))
    assert said.code == 1
    assert "cannot be changed (Read-only file system)" in said.err


def test_json_is_one_object_to_the_line(refused):
    process = spawn("spool", "--json", *of(refused))
    said = end(process)
    kinds = [json.loads(line)["kind"] for line in said.out.splitlines()]
    assert kinds == ["spool", "quarantined", "quarantined"]
    assert said.err == ""
