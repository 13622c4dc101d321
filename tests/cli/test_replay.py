"""`sidelight replay --to otlp`: only what the endpoint accepted counts as sent."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from tests.support.commands import of, sidelight
from tests.support.stored import NOON, record, store

from sidelight import Store
from sidelight.cli import replay as replaying


class Server(ThreadingHTTPServer):
    """Takes log records, as far as a test lets it.

    Attributes:
        status: the status of each answer.
        rejects: how many log records of each request it rejects, and why.
        accepted: how many it accepted.
        requests: how many it was asked.
    """

    status, rejects, why, accepted, requests = 200, 0, "over quota", 0, 0

    def answer(self, body):
        self.requests += 1
        if self.status != 200:
            return b""
        (resource,) = ExportLogsServiceRequest.FromString(body).resource_logs
        number = sum(len(scope.log_records) for scope in resource.scope_logs)
        rejected = min(self.rejects, number)
        self.accepted += number - rejected
        answer = ExportLogsServiceResponse()
        answer.partial_success.rejected_log_records = rejected
        answer.partial_success.error_message = self.why if rejected else ""
        return answer.SerializeToString()


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        answer = self.server.answer(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "events.db"
    store(f"sqlite:///{path}", [record("made", at=NOON + n) for n in range(25)])
    return path


@pytest.fixture
def ids(path):
    with Store(f"sqlite:///{path}") as opened:
        return [event.event_id for event in opened.events()]


def replay(path, server, *options):
    endpoint = f"http://127.0.0.1:{server.server_port}"
    return sidelight("replay", "--to", "otlp", "--otlp", endpoint, *options, *of(path))


def test_all_events_are_sent(path, ids, server):
    said = replay(path, server, "--json")
    assert (said.code, server.accepted) == (0, 25)
    assert said.json == [{"sent": 25, "last": ids[-1], "problem": None}]


@pytest.mark.parametrize("status", [404, 405, 501])
def test_an_endpoint_that_takes_no_log_records_ends_the_run_at_once(path, server, status):
    server.status = status
    said = replay(path, server, "--json")
    assert (said.code, server.requests) == (1, 1)
    (told,) = said.json
    assert (told["sent"], told["last"]) == (0, None)
    assert f"this endpoint takes no OTLP log records: it answered {status}" in told["problem"]
    assert told["problem"] in said.err
    assert "0 events sent" in replay(path, server).err


def test_rejected_log_records_are_not_sent(path, ids, server, monkeypatch):
    monkeypatch.setattr(replaying, "_BATCH", 10)
    server.rejects = 2
    said = replay(path, server, "--json")
    assert (said.code, server.accepted) == (1, 19)
    problem = "log records rejected by the OTLP endpoint: 6 times: over quota"
    assert said.json == [{"sent": 19, "last": ids[-1], "problem": problem}]
    assert problem in said.err
    assert "--after" not in said.err  # because all events were tried
    assert "19 events sent" in replay(path, server).err
    server.why = ""
    assert replay(path, server, "--json").json[0]["problem"].endswith("endpoint: 6 times")


def test_a_request_that_is_rejected_as_a_whole_ends_the_run(path, ids, server, monkeypatch):
    monkeypatch.setattr(replaying, "_BATCH", 10)
    server.rejects = 10
    said = replay(path, server, "--after", ids[4], "--json")
    assert (said.code, server.requests) == (1, 1)
    (told,) = said.json
    assert (told["sent"], told["last"]) == (0, ids[4])
    assert "over quota" in told["problem"]
    assert f"go on with --after {ids[4]}" in said.err
