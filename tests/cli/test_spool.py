"""`sidelight spool`: segments, their writers, and the quarantine."""

import contextlib
import http.server
import os
import re
import shlex
import shutil
import signal
import socket
import sqlite3
import threading
import time

import msgspec
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from tests.support.commands import KILLED, Living, emit, of, relaying, sidelight, stored, wait_for
from tests.support.rules import alter, rule
from tests.support.stored import record, store

from sidelight.cli.spool import segments
from sidelight.cli.spool.replay import Replay
from sidelight.record import FRAME, decode, encode, frame, ledger_part
from sidelight.record.format import FRAME_MAGIC
from sidelight.record.ledger import ledger_frame
from sidelight.spool import Entry, Quarantine
from sidelight.spool.directory import segments_in
from sidelight.spool.header import PAGE
from sidelight.spool.segment import Segment

TEN = """
sidelight.configure(relay="external")
for n in range(10):
    receive(f"order-{n}", "north", size=n)
os.kill(os.getpid(), signal.SIGKILL)
"""
UNWELCOME = ("order-3", "order-7")


def spool_of(path):
    return path.with_name(f"{path.name}-spool")


def shown(path):
    """The segments, as JSON shows them."""
    said = sidelight("spool", "--json", *of(path))
    assert said.code == 0, said
    return [each for each in said.json if each["kind"] == "segment"]


def words(path):
    return sidelight("spool", *of(path), columns=200).words


def quarantined(path):
    return sidelight("spool", "quarantined", "--json", *of(path)).json


def rule_against(path, artifact):
    """The statements that make the store refuse the events of an artifact, and that end it."""
    name = f"no_{artifact.replace('-', '_')}"
    return rule(f"sqlite:///{path}", "events", f"NEW.artifact_id = '{artifact}'", name=name)


def welcome(path, *artifacts):
    for artifact in artifacts:
        alter(f"sqlite:///{path}", rule_against(path, artifact)[1])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "events.db"


@pytest.fixture
def killed(path):
    """The segment of a killed process that left 500 events."""
    emit(KILLED, path, ends=signal.SIGKILL, OTEL_SERVICE_NAME="shop")
    (file,) = segments_in(spool_of(path))
    return file


@pytest.fixture
def refused(path):
    """A store that took eight of ten events and refused two."""
    store(f"sqlite:///{path}", [record("order_received")])
    for artifact in UNWELCOME:
        alter(f"sqlite:///{path}", rule_against(path, artifact)[0])
    emit(TEN, path, ends=signal.SIGKILL, OTEL_SERVICE_NAME="shop")
    said = sidelight("relay", "--once", *of(path))
    assert "refused by store: 2 times" in said.err
    assert stored(path) == 9
    return path


# -- segments --------------------------------------------------------------------------------


def test_an_orphaned_segment(path, killed):
    spool, segment = sidelight("spool", "--json", *of(path)).json
    assert spool["kind"] == "spool"
    assert spool["directory"] == str(spool_of(path))
    assert (spool["segments"], spool["bytes"]) == (1, 1024 * 1024)
    assert spool["limit"] == 1024**3
    assert (segment["service"], segment["alive"], segment["attended"]) == ("shop", False, False)
    assert segment["host"] == os.uname().nodename
    assert 0 < segment["used"] < segment["size"] == 1024 * 1024
    backlog = segment["behind"]["store"]
    assert backlog["records"] == 500
    assert 500 * 50 < backlog["bytes"] < segment["used"]
    assert backlog["oldest_at"].startswith("20")
    assert re.search(r"shop \d+ on \S+ ended .* 500 \([\d.]+ kB\), [\d.]+ \S+ old", words(path))
    assert "1 segment, 1.05 MB of 1.07 GB allowed" in words(path)


def test_a_living_writer_and_its_relay(path):
    store(f"sqlite:///{path}", [record("order_received")])

    def written():
        each = next(s for s in shown(path) if s["relay"] == "external")
        return each["alive"], each["attended"], each["behind"]["store"]["records"]

    with Living(path) as living:
        living.emit(1)
        assert written() == (True, False, 1)
        assert "alive, no relay reads it" in words(path)
        with relaying(*of(path)):
            wait_for(lambda: written() == (True, True, 0))
            assert "alive, a relay reads it" in words(path)
    assert written() == (False, False, 0)


def test_a_full_segment_of_a_living_writer_is_not_orphaned(path):
    with Living(path) as living:
        for n in range(7500):
            living.emit(n)
        first, second = shown(path)
        assert first["instance"] == second["instance"]
        assert [first["written"], second["written"]] == [False, True]
        assert [first["alive"], second["alive"]] == [True, True]
        assert first["used"] > 0.99 * first["size"]
        assert "alive, has left it" in words(path)
        assert "which has ended" not in sidelight("doctor", *of(path)).words


def test_each_sink_has_its_own_backlog(path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{unused.getsockname()[1]}"
        emit(KILLED, path, ends=signal.SIGKILL, OTEL_EXPORTER_OTLP_ENDPOINT=nowhere)
    sidelight("relay", "--once", *of(path))
    (segment,) = shown(path)
    records = {sink: each["records"] for sink, each in segment["behind"].items()}
    assert records == {"store": 0, "traces": 500, "logs": 500}


def test_it_changes_nothing_and_takes_no_lock(path, killed, monkeypatch):
    Segment.adopt(killed).close()  # which gives back the unused end
    before = killed.read_bytes()
    looked = []

    class Scanner(segments.Scanner):
        def batch(self, limit):
            with contextlib.closing(Segment.adopt(killed)) as adopted:  # as a relay would just then
                looked.append(adopted is not None)
            return super().batch(limit)

    monkeypatch.setattr(segments, "Scanner", Scanner)
    assert shown(path)[0]["behind"]["store"]["records"] == 500
    assert set(looked) == {True}
    assert killed.read_bytes() == before


def test_damage_and_odd_names(path, killed):
    content = bytearray(killed.read_bytes())
    content[-100:-90] = b"xxxxxxxxxx"  # behind all records
    killed.write_bytes(content)
    assert shown(path)[0]["damaged"] == 22
    assert "22 bytes are no records" in words(path)
    content[:PAGE] = os.urandom(PAGE)
    killed.write_bytes(content)
    (segment,) = shown(path)
    assert (segment["pid"], segment["service"]) == (None, None)
    assert segment["behind"]["store"]["records"] == 500
    assert "process (unknown)" in words(path)
    odd = killed.rename(killed.with_name("mine.segment"))
    assert shown(path)[0]["created_at"] is None
    odd.rename(odd.with_name(f"{time.time_ns() + 3600 * 10**9:016x}-12345678.segment"))
    assert re.search(r"in (1 h|59 min)", words(path))


def test_a_terminal_sees_the_progress_of_slow_work(path, killed, monkeypatch):
    monkeypatch.setattr("sidelight.cli.output._SHOW_PROGRESS_AFTER", 0.0)
    assert sidelight("spool", *of(path)).err == ""
    monkeypatch.setenv("FORCE_COLOR", "1")
    said = sidelight("spool", "--json", *of(path))
    assert "reading segments" in said.err
    assert len(said.json) == 2


def test_a_directory_that_is_missing_or_closed(path, monkeypatch):
    said = sidelight("spool", *of(path))
    assert said.code == 1
    assert "events.db-spool: there is no such directory; nothing was emitted yet" in said.err
    emit(KILLED, path, ends=signal.SIGKILL)

    def forbidden(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Segment, "inspect", forbidden)
    said = sidelight("spool", *of(path))
    assert said.code == 1
    assert "Permission denied; ask the owner for access" in said.err


# -- the quarantine --------------------------------------------------------------------------


def test_a_refused_record_is_listed_with_its_reason(refused):
    for each, artifact in zip(quarantined(refused), UNWELCOME, strict=True):
        assert each["reason"] == "refused by store"
        assert each["problem"] == f"no_{artifact.replace('-', '_')}"
        assert (each["refused_by"], each["missing_in"]) == ("store", ["store"])
        assert (each["type"], each["artifact_id"]) == ("order_received", artifact)
        assert each["attributes"] == {"size": int(artifact[-1])}
        assert each["writer"]["resource"]["service.name"] == "shop"
        assert each["writer"]["limits"]
        assert each["occurred_at"] < each["set_aside_at"]
    said = sidelight("spool", "quarantined", *of(refused), columns=160)
    assert re.search(r"order_received +order-3 .* refused by store: no_order_3", said.words)
    said = sidelight("spool", *of(refused))
    assert "quarantine: 2 entries" in said.words
    assert f"`{shlex.join(['sidelight', 'spool', 'replay', *of(refused)])}` delivers" in said.err
    kinds = [each["kind"] for each in sidelight("spool", "--json", *of(refused)).json]
    assert kinds == ["spool", "quarantined", "quarantined"]


def test_replay_delivers_exactly_once_and_says_what_stays(refused, tmp_path):
    first, second = quarantined(refused)
    copy = tmp_path / "copy"
    shutil.copytree(spool_of(refused) / "quarantine", copy)

    said = sidelight("spool", "replay", *of(refused))
    assert said.code == 1
    assert f"1 entry stays ({first['id'][:8]}): refused again: no_order_3" in said.err
    assert [each["id"] for each in quarantined(refused)] == [first["id"], second["id"]]

    welcome(refused, "order-7")
    said = sidelight("spool", "replay", "--json", *of(refused))
    assert said.code == 1
    assert said.json == [
        {"identity": first["id"], "delivered": {}, "stays": "refused again: no_order_3"},
        {"identity": second["id"], "delivered": {"store": 1}, "stays": ""},
    ]
    assert stored(refused) == 10
    (event,) = sidelight("events", "--artifact", "order-7", "--json", *of(refused)).json
    assert event["event_id"] == second["event_id"]

    welcome(refused, "order-3")
    said = sidelight("spool", "replay", first["id"][:4], *of(refused))
    assert (said.code, "store: 1 record delivered" in said.out) == (0, True)
    assert quarantined(refused) == []

    shutil.copytree(copy, spool_of(refused) / "quarantine", dirs_exist_ok=True)
    assert len(quarantined(refused)) == 2
    assert sidelight("spool", "replay", *of(refused)).code == 0
    assert stored(refused) == 11
    counts = sidelight("counts", "--by", "type", "--json", *of(refused)).json
    assert counts == [{"type": "order_received", "count": 11}]
    assert len(sidelight("events", "--json", *of(refused)).json) == 11


def test_a_store_that_does_not_answer_keeps_all_entries(refused):
    welcome(refused, *UNWELCOME)
    before = quarantined(refused)
    with contextlib.closing(sqlite3.connect(refused, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        said = sidelight("spool", "replay", *of(refused))
    assert said.code == 1
    assert re.search(r"2 entries stay .*: .* does not answer: .*lock", said.err)
    assert quarantined(refused) == before
    assert sidelight("spool", "replay", *of(refused)).code == 0


def test_an_entry_goes_only_to_the_store_that_it_names(refused, tmp_path):
    there = ("--spool", spool_of(refused))
    said = sidelight("spool", "replay", *there, *of(tmp_path / "other.db"))
    assert said.code == 1
    assert f"for the store sqlite:///{refused}; name that with --store" in said.err
    welcome(refused, *UNWELCOME)
    assert sidelight("spool", "replay", *there).code == 0
    assert stored(refused) == 11


@pytest.fixture
def endpoint():
    """An HTTP server that answers requests with a body with ``statuses``.

    A status is a number, or the body of a partial success.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status = statuses.get(self.path, 200) if body else 200
            partial = status if isinstance(status, bytes) else b""
            taken.extend([self.path] if body and status == 200 else [])
            self.send_response(200 if partial else status)
            self.send_header("Content-Length", str(len(partial)))
            self.end_headers()
            self.wfile.write(partial)

        def log_message(self, *_):
            pass

    statuses, taken = {}, []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", statuses, taken
        server.shutdown()
        thread.join()


def test_a_record_that_the_collector_refused_goes_there_alone(path, endpoint):
    url, statuses, taken = endpoint
    statuses["/v1/traces"] = 400
    emit(TEN, path, ends=signal.SIGKILL, OTEL_EXPORTER_OTLP_ENDPOINT=url)
    said = sidelight("relay", "--once", "--otlp", url, *of(path))
    assert "refused by traces: 10 times" in said.err
    assert stored(path) == 10
    assert {each["refused_by"] for each in quarantined(path)} == {"traces"}
    for options, why in (
        ((), "for traces; name the endpoint with --otlp or OTEL_EXPORTER_OTLP_ENDPOINT"),
        (("--otlp", url), "10 entries stay .*: refused again: it answered 400"),
    ):
        said = sidelight("spool", "replay", *options, *of(path))
        assert said.code == 1
        assert re.search(why, said.err)
    statuses.clear()
    taken.clear()
    said = sidelight("spool", "replay", "--otlp", url, *of(path))
    assert said.code == 0, said
    assert taken == ["/v1/traces"] * 10
    assert "traces: 10 records delivered" in said.out
    assert quarantined(path) == []


REJECTED = ExportLogsServiceResponse()
REJECTED.partial_success.rejected_log_records = 1
REJECTED.partial_success.error_message = "over quota"


@pytest.mark.parametrize(
    ("answer", "why", "problem"),
    [
        (404, "this endpoint takes no OTLP log records: it answered 404 Not Found", "answered 400"),
        (REJECTED.SerializeToString(), "refused again: .*: over quota", "over quota"),
    ],
    ids=["a path that is misspelt", "a partial success"],
)
def test_an_entry_stays_that_the_endpoint_does_not_take(path, endpoint, answer, why, problem):
    url, statuses, taken = endpoint
    statuses["/v1/logs"] = 400
    emit(TEN, path, ends=signal.SIGKILL, OTEL_EXPORTER_OTLP_ENDPOINT=url)
    sidelight("relay", "--once", "--otlp", url, *of(path))
    before = quarantined(path)
    assert {each["refused_by"] for each in before} == {"logs"}
    statuses["/v1/logs"] = answer
    said = sidelight("spool", "replay", "--otlp", url, *of(path))
    assert said.code == 1
    assert "delivered" not in said.out
    assert re.search(f"10 entries stay .*: {why}", said.err)
    said = sidelight("spool", "replay", "--json", "--otlp", url, *of(path))
    assert [each["delivered"] for each in said.json] == [{}] * 10
    assert {each["id"] for each in quarantined(path)} == {each["id"] for each in before}
    assert all(problem in each["problem"] for each in quarantined(path))
    statuses.clear()
    taken.clear()
    said = sidelight("spool", "replay", "--otlp", url, *of(path))
    assert (said.code, taken) == (0, ["/v1/logs"] * 10)
    assert "logs: 10 records delivered" in said.out
    assert quarantined(path) == []


class Meanwhile:
    """A sink of the store that takes everything, while something else happens."""

    name = "store"

    def __init__(self, happens):
        self.happens, self.taken = happens, []

    def write(self, records, _):
        self.taken += records
        self.happens()


@pytest.fixture
def attempt(tmp_path):
    """Replay an entry to the store, while the relay of another process keeps another entry."""

    def attempt(there, kept):
        quarantine, other = Quarantine(tmp_path), Quarantine(tmp_path)
        quarantine.keep(there)
        listed = [*quarantine.entries()]
        sink = Meanwhile(lambda: other.keep(kept))
        (outcome,) = Replay(quarantine, {"store": sink}, lambda _: True).run(listed)
        assert len(sink.taken) == 1
        return outcome, [entry for _, entry in quarantine.entries()]

    return attempt


def entry_of(payload, **changed):
    fields = {"reason": "r", "problem": "p", "at": 1, "segment": "s", "writer": {"instance": "i"}}
    fields |= {"kind": "record", "refused_by": "store", "sinks": ("store",), "offset": None}
    return Entry(payload=payload, **{**fields, **changed})


@pytest.mark.parametrize("kind", ["record", "stretch"])
def test_sinks_that_a_relay_adds_during_a_replay_stay(attempt, kind):
    payload = encode(record("made", artifact="o1"))
    if kind == "stretch":
        payload = b"garbage" + frame(payload)
    there = entry_of(payload, kind=kind, refused_by=None, offset=5)
    outcome, (left,) = attempt(there, msgspec.structs.replace(there, sinks=("logs",)))
    assert outcome.delivered == {"store": 1}
    assert outcome.stays == "a relay added to it meanwhile; replay it again"
    assert (left.sinks, left.payload) == (("logs",), payload)


def told(**losses):
    return entry_of(ledger_frame({"losses": losses}, 1, 1)[FRAME.size :])


def test_losses_that_a_relay_adds_during_a_replay_stay(attempt):
    outcome, (left,) = attempt(told(full=1), told(full=3))
    assert left.sinks == ("store",)
    assert ledger_part(decode(left.payload)[1]).losses == {"full": 3}
    assert outcome.stays == "a relay added to it meanwhile; replay it again"


def test_a_second_refusal_of_what_was_delivered_leaves_nothing(attempt):
    there = entry_of(encode(record("made", artifact="o1")))
    outcome, left = attempt(there, there)
    assert (outcome.stays, left) == ("", [])


def test_what_a_relay_added_since_the_quarantine_was_listed_is_tried(tmp_path):
    quarantine = Quarantine(tmp_path)
    quarantine.keep(told(full=1))
    listed = [*quarantine.entries()]
    quarantine.keep(told(full=3))
    sink = Meanwhile(int)
    assert [each.stays for each in Replay(quarantine, {"store": sink}, bool).run(listed)] == [""]
    assert [ledger_part(moment).losses for _, moment in sink.taken] == [{"full": 3}]
    (again,) = Replay(quarantine, {"store": sink}, bool).run(listed)  # another process was faster
    assert (again.delivered, len(sink.taken)) == ({}, 1)


def hit(file, record, at, what=b"zz"):
    """Damage the ``record``-th frame of a segment, ``at`` bytes behind its beginning."""
    content = bytearray(file.read_bytes())
    place = PAGE
    for _ in range(record):
        place = content.index(FRAME_MAGIC, place + 1)
    content[place + at : place + at + len(what)] = what
    file.write_bytes(content)


def test_whole_records_in_a_damaged_stretch_are_delivered(path, endpoint):
    url, _, taken = endpoint
    emit(KILLED, path, ends=signal.SIGKILL, OTEL_EXPORTER_OTLP_ENDPOINT=url)
    (file,) = segments_in(spool_of(path))
    hit(file, 400, 40)  # a payload
    hit(file, 302, 41)  # and another
    hit(file, 301, 0)  # the magic of the frame before it
    hit(file, 300, 0)  # and of the frame before that
    hit(file, 20, 4)  # a length
    said = sidelight("relay", "--once", "--otlp", url, *of(path))
    assert "damaged stretch of the spool: 4 times" in said.err
    assert stored(path) == 495
    assert sorted(each["whole_records"] for each in quarantined(path)) == [0, 0, 1, 2]
    missing = {tuple(each["missing_in"]) for each in quarantined(path)}
    assert missing == {("logs", "store", "traces")}

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


def test_an_unreadable_record(path):
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


def test_discard_deletes_the_named_entries(refused):
    first, second = quarantined(refused)
    said = sidelight("spool", "discard", *of(refused))
    assert (said.code, "name entries, or give --all" in said.err) == (2, True)
    said = sidelight("spool", "discard", first["id"][:6], *of(refused))
    assert (said.code, said.err.strip()) == (0, "1 entry deleted")
    assert quarantined(refused) == [second]
    assert sidelight("spool", "discard", "--all", *of(refused)).code == 0
    assert quarantined(refused) == []
    for command in ("quarantined", "replay"):
        said = sidelight("spool", command, *of(refused))
        assert (said.code, said.err.strip()) == (0, "the quarantine is empty")


def test_commands_that_are_refused(refused, monkeypatch):
    said = sidelight("spool", "replay", "zzz", *of(refused))
    assert said.code == 2
    assert (
        f"no id begins with 'zzz'; see `sidelight spool quarantined --spool {spool_of(refused)}`"
        in said.err
    )
    for each in quarantined(refused):
        file = spool_of(refused) / "quarantine" / f"{each['id']}.msgpack"
        file.rename(file.with_name(f"aa{file.name[2:]}"))
    said = sidelight("spool", "quarantined", "aa", *of(refused))
    assert "2 entries have ids that begin with 'aa'" in said.err
    said = sidelight("spool", "--spool", spool_of(refused), "quarantined")
    assert said.code == 2
    assert "write the options behind `quarantined`" in said.err

    def read_only(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("sidelight.spool.quarantine.Quarantine.discard", read_only)
    said = sidelight("spool", "discard", "--all", *of(refused))
    assert said.code == 1
    assert "cannot be changed (Read-only file system)" in said.err
