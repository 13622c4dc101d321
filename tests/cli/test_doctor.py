"""`sidelight doctor` finds what is wrong, and touches nothing."""

import contextlib
import http.server
import os
import re
import signal
import socket
import sqlite3
import threading

import pytest
from tests.support.commands import KILLED, TWO_ORDERS, Living, emit, of, sidelight


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    path = tmp_path_factory.mktemp("filled") / "events.db"
    emit(TWO_ORDERS, path)
    return path


# -- doctor ----------------------------------------------------------------------------------


def findings(said):
    return {(each["check"], each["state"]): each["message"] for each in said.json}


def test_all_is_well(filled):
    said = sidelight("doctor", *of(filled))
    assert said.code == 0, said
    assert "6 events, the latest" in said.words
    assert "all is well" in said.out
    assert {each["state"] for each in sidelight("doctor", "--json", *of(filled)).json} <= {
        "ok",
        "note",
    }


def test_the_doctor_misses_the_store(tmp_path):
    said = sidelight("doctor", *of(tmp_path / "events.db"))
    assert said.code == 1
    assert "there is none at" in said.out
    assert "1 thing is wrong" in said.out
    assert list(tmp_path.iterdir()) == []


def test_the_doctor_finds_what_the_dead_have_left(tmp_path):
    path = tmp_path / "events.db"
    emit(KILLED, path, ends=signal.SIGKILL, OTEL_SERVICE_NAME="shop")
    found = findings(sidelight("doctor", "--json", *of(path)))
    assert re.match(
        r"store: 500 records \([\d.]+ kB\), the oldest .* old, of shop \d+, which has ended",
        found["backlog", "wrong"],
    )
    before = sorted((p.name, p.read_bytes()) for p in (tmp_path / "events.db-spool").iterdir())
    sidelight("doctor", *of(path))
    after = sorted((p.name, p.read_bytes()) for p in (tmp_path / "events.db-spool").iterdir())
    assert before == after
    sidelight("relay", "--once", *of(path))
    assert sidelight("doctor", *of(path)).code == 0


def test_the_doctor_leaves_the_living_their_time(tmp_path, monkeypatch):
    path = tmp_path / "events.db"
    emit('receive("order-0")\nassert sidelight.flush()', path)
    living = Living(path)
    try:
        living.emit(1)
        monkeypatch.setattr("sidelight.cli.doctor.backlog._PATIENCE", 60 * 10**9)
        found = findings(sidelight("doctor", "--json", *of(path)))
        assert found["backlog", "ok"] == "on its way"
        assert "1 running process" in found["spool", "ok"]
        monkeypatch.setattr("sidelight.cli.doctor.backlog._PATIENCE", 0)
        said = sidelight("doctor", *of(path))
        assert said.code == 1
        assert "which is running: no relay reads them → start `sidelight relay`" in said.words
    finally:
        living.kill()


def test_the_doctor_finds_a_lock(filled, tmp_path):
    path = tmp_path / "events.db"
    path.write_bytes(filled.read_bytes())
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode = WAL")
        other.execute("BEGIN IMMEDIATE")
        found = findings(sidelight("doctor", "--json", *of(path)))
    assert "database is locked" in found["store", "wrong"]
    assert "events" in found["store", "ok"]


def test_the_doctor_finds_damage_and_what_was_set_aside(tmp_path):
    path = tmp_path / "events.db"
    emit(KILLED, path, ends=signal.SIGKILL)
    (segment,) = (tmp_path / "events.db-spool").glob("*.segment")
    content = bytearray(segment.read_bytes())
    content[8000:8010] = b"xxxxxxxxxx"
    segment.write_bytes(content)
    found = findings(sidelight("doctor", "--json", *of(path)))
    assert "no records any more" in found["spool", "wrong"]
    said = sidelight("relay", "--once", *of(path))
    assert "damaged stretch of the spool: 1 time: " in said.err
    assert re.search(r"store +500", said.out)  # 499 events, and what was lost
    found = findings(sidelight("doctor", "--json", *of(path)))
    assert "1 entry: damaged stretch of the spool; the latest" in found["quarantine", "wrong"]


def test_the_doctor_tells_of_losses(tmp_path):
    path = tmp_path / "events.db"
    emit(
        """
        from sidelight.emission.emitter import EMITTER
        receive("order-1")
        EMITTER.count("no room in the spool", "the disk is full")
        assert sidelight.flush()
        """,
        path,
    )
    said = sidelight("doctor", *of(path))
    assert said.code == 1
    assert "no room in the spool: 1 time in 1 process, reported" in said.words
    assert "the disk is full → free the disk, raise spool_limit" in said.words


@pytest.mark.parametrize("kind", ["file", "unwritable"])
def test_the_doctor_finds_no_room_for_the_spool(filled, tmp_path, kind):
    spool = tmp_path / "spool"
    if kind == "file":
        spool.write_text("not a directory")
    else:
        spool.mkdir(mode=0o500)
        if os.access(spool, os.W_OK):
            pytest.skip("this user may write everywhere")
    found = findings(sidelight("doctor", "--json", "--spool", spool, *of(filled)))
    assert str(spool) in found["spool", "wrong"]


@pytest.fixture
def endpoint():
    """An HTTP server that answers with whatever ``status`` says."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked.append((self.path, self.headers["Content-Type"]))
            self.send_response(statuses.get(self.path, 200))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    asked, statuses = [], {}
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked, statuses
        server.shutdown()
        thread.join()


def test_the_doctor_asks_the_collector(filled, endpoint):
    url, asked, statuses = endpoint
    said = sidelight("doctor", "--otlp", url, *of(filled))
    assert said.code == 0, said
    assert asked == [
        ("/v1/traces", "application/x-protobuf"),
        ("/v1/logs", "application/x-protobuf"),
    ]
    statuses["/v1/traces"] = 403
    statuses["/v1/logs"] = 404
    found = findings(sidelight("doctor", "--json", "--otlp", url, *of(filled)))
    assert "it answered 403" in found["otlp", "wrong"]
    assert "knows no log records" in found["otlp", "note"]


def test_the_doctor_finds_no_collector(filled, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv(
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"http://127.0.0.1:{unused.getsockname()[1]}"
        )
    for protocol in ("http/protobuf", "grpc"):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        found = findings(sidelight("doctor", "--json", *of(filled)))
        assert f"by {protocol}: " in found["otlp", "wrong"]


def test_the_doctor_knows_when_sidelight_is_off(filled, monkeypatch):
    monkeypatch.setenv("SIDELIGHT_DISABLED", "1")
    found = findings(sidelight("doctor", "--json", *of(filled)))
    assert "nothing is emitted" in found["switches", "note"]
