"""`sidelight overdue`, and calls that are abandoned by a process that is killed."""

import http.server
import json
import re
import signal
import sys
import threading
import time
from datetime import timedelta
from typing import ClassVar
from unittest import mock

import pytest
from tests.support.commands import (
    emit,
    end,
    of,
    relaying,
    running,
    sidelight,
    start,
    stored,
    wait_for,
)
from tests.support.stored import BACKENDS

from sidelight import Store
from sidelight.cli.store.alerts import Told, follow_overdue
from sidelight.cli.store.channels import channels_of
from sidelight.record import Expectation
from sidelight.store import Judgement

EXPECT = """
[[expect]]
after = "order_received"
one_of = ["order_packed", "packing_failed"]
within = "1ms"
"""
DIES = """
sidelight.configure(os.environ["SIDELIGHT_STORE"])
receive("order-1", "north")
pack("order-1")
receive("order-2", "north")
import threading
threading.Thread(target=pack, args=("order-2", 600), daemon=True).start()
assert sidelight.flush(20)
print("packing", flush=True)
time.sleep(600)
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sidelight.toml").write_text(EXPECT)
    return tmp_path


def judged(url, *options):
    said = sidelight("overdue", "--json", *options, *of(url))
    return said.code, {each["artifact_id"]: each["state"] for each in said.json}, said.err


@pytest.mark.parametrize("backend", sorted(BACKENDS))
def test_a_killed_process_abandons_its_calls(here, monkeypatch, backend):
    url = BACKENDS[backend](here)
    spool = {"SIDELIGHT_SPOOL": str(here / "spool")}
    relay = ["relay", "--once", "--spool", here / "spool", *of(url)]
    with running(DIES, url, OTEL_SERVICE_NAME="shop", **spool) as process:
        assert [e.outcome for e in events_of(url)].count("started") == 2
        process.send_signal(signal.SIGKILL)
        process.wait()
    with Store(url) as opened:
        assert [each.ended for each in opened.processes()] == [""]
        late = [
            Expectation(after="order_received", one_of=("order_packed",), within=timedelta(0.1))
        ]
        assert opened.overdue(late) == []  # not due
    monkeypatch.setenv("SIDELIGHT_SPOOL", spool["SIDELIGHT_SPOOL"])
    code, states, told = judged(url)
    assert (code, states["order-2"]) == (3, "unknown"), told
    assert "has ended, and its end is not noted: `sidelight relay --once --store " in told
    assert "not judged yet" not in told
    assert (
        "add --without INSTANCE for each process that never comes back"
        in sidelight("overdue", *of(url)).err
    )
    said = sidelight(*relay)
    assert (said.code, "noted that 1 process has ended" in said.err) == (0, True)
    assert "noted that" not in sidelight(*relay).err
    assert [(e.type, e.outcome) for e in events_of(url) if e.artifact_id == "order-2"] == [
        ("order_received", "succeeded"),
        ("packing_started", "abandoned"),
    ]
    assert [e.outcome for e in events_of(url) if e.type == "packing_started"] == [
        "started",
        "abandoned",
    ]
    with Store(url) as opened:
        assert [each.ended for each in opened.processes()] == ["died"]
    code, states, _ = judged(url)
    assert (code, states) == (1, {"order-2": "overdue"})
    (found,) = sidelight("events", "--failed", "--json", *of(url)).json
    assert found["outcome"] == "abandoned"
    assert "⊘ packing_started" in sidelight("timeline", "order-2", *of(url)).out
    assert "began in the last 1.5d" in sidelight("overdue", "--since", "1.5d", *of(url)).err
    said = sidelight("overdue", *of(url), columns=140)
    assert said.code == 1
    assert re.search(r"✗ +order-2 +north +order_packed or packing_failed .* abandoned", said.out)
    assert "1 artifact overdue, of those whose wait began in the last 7d" in said.err
    assert [e["type"] for e in sidelight("events", "--service", "shop", "--json", *of(url)).json]
    assert sidelight("events", "--service", "desk", "--json", *of(url)).json == []


def events_of(url):
    with Store(url) as opened:
        return list(opened.events())


def test_a_process_that_ends_says_so(here):
    url = f"sqlite:///{here / 'events.db'}"
    emit('receive("order-1", "north")', url)
    with Store(url) as opened:
        (process,) = opened.processes()
    assert process.ended == "exited"
    assert judged(url)[:2] == (1, {"order-1": "overdue"})
    with Store(url) as opened:
        assert [e.outcome for e in opened.events()] == ["succeeded"]


def test_an_external_relay_notes_that_a_process_lives(here):
    url = f"sqlite:///{here / 'events.db'}"
    body = 'sidelight.configure(relay="external"); receive("order-1"); print("ready", flush=True)'
    with running(f"{body}; time.sleep(600)", url, OTEL_SERVICE_NAME="shop"), relaying(*of(url)):
        wait_for(lambda: stored(url) == 1)
        wait_for(lambda: judged(url)[0] == 1, 20)
        with Store(url) as opened:
            assert "shop" in {each.service for each in opened.processes()}


def test_a_relay_that_is_stopped_makes_it_unknown(here, monkeypatch):
    url = f"sqlite:///{here / 'events.db'}"
    body = 'receive("order-1", "north"); print(sidelight.flush(20), flush=True); time.sleep(600)'
    monkeypatch.setattr("sidelight.store.overdue.SILENT", 2_000_000_000)
    with running(body, url, OTEL_SERVICE_NAME="shop") as process:
        wait_for(lambda: judged(url)[0] == 1, 20)  # after the next sign of life
        process.send_signal(signal.SIGSTOP)
        time.sleep(3)
        (here / "sidelight.toml").write_text(EXPECT.replace("1ms", "0.1ms") + EXPECT)
        with Store(url) as opened:
            (known,) = opened.processes()
            since = (time.time_ns() - known.delivered_until_ns) / 1e9 - 1.5
            wait = Expectation(after="order_received", one_of=("x",), within=waited(opened, since))
            (found,) = opened.overdue([wait])
        assert (found.state, "has been silent for" in found.reason) == ("unknown", True)
        process.send_signal(signal.SIGCONT)
    assert stored(url)


def waited(opened, since):
    """A time within which the order was due shortly before now: ``since`` s after the last sign."""
    received = next(opened.events(type="order_received")).occurred_ns
    return timedelta(microseconds=(time.time_ns() - received) / 1000 - since * 1e6 / 2)


# -- the command ---------------------------------------------------------------------------------


def test_expectations_come_from_map_and_code(here, monkeypatch):
    url = f"sqlite:///{here / 'events.db'}"
    emit('receive("order-1"); pack("order-1")', url)
    assert judged(url) == (0, {}, "")
    (here / "expects.py").write_text(
        "import sidelight\n"
        'sidelight.catalogue.expect(after="order_packed", one_of="order_sent", within="1ms")\n'
    )
    monkeypatch.setattr(sys, "path", [*sys.path])
    from sidelight import catalogue  # noqa: PLC0415

    try:
        assert judged(url, "--catalogue", "expects")[:2] == (1, {"order-1": "overdue"})
    finally:
        catalogue.clear()
        sys.modules.pop("expects", None)
    (here / "sidelight.toml").write_text("")
    said = sidelight("overdue", *of(url))
    assert (said.code, "nothing is expected; write [[expect]]" in said.err) == (2, True)
    said = sidelight("overdue", "--map", "none.toml", *of(url))
    assert (said.code, "none.toml" in said.err) == (1, True)


MISSPELT = """
[[expect]]
after = "order_recieved"
one_of = "order_lost"
within = "1ms"

[[expect]]
after = "order_packed"
one_of = ["order_lost", "packing_startd"]
within = "1ms"

[[expect]]
after = "order_packed"
one_of = "order_sent"
within = "1ms"
"""


def test_waits_and_misspelt_types_are_told(here):
    """An artifact that waits twice is one artifact. A type that has not occurred yet is none."""
    url = f"sqlite:///{here / 'events.db'}"
    emit('receive("order-1"); pack("order-1")', url)
    (here / "sidelight.toml").write_text(MISSPELT)
    said = sidelight("overdue", *of(url))
    assert "1 artifact (2 waits) overdue" in said.err
    assert re.findall(r"no event of the type (\w+) is known; did you mean (\w+)\?", said.err) == [
        ("order_recieved", "order_received"),
        ("packing_startd", "packing_started"),
    ]
    assert "order_lost: no event of the type order_lost is known; the wait does not" in said.err
    assert "order_sent: no event of the type order_sent is known; the wait does not end" in said.err


def test_a_type_that_may_end_a_wait_is_told_only_where_no_other_does(here):
    url = f"sqlite:///{here / 'events.db'}"
    emit('receive("order-1"); pack("order-1")', url)
    expect = '[[expect]]\nafter = "order_received"\none_of = {}\nwithin = "1h"\n'
    (here / "sidelight.toml").write_text(expect.format('["order_packed", "order_lost"]'))
    assert "is known" not in sidelight("overdue", *of(url)).err
    both = expect.format('["order_packed", "zebra"]') + expect.format('"zebra"')
    (here / "sidelight.toml").write_text(both)
    told = re.findall("order_received → (.*): no event of", sidelight("overdue", *of(url)).err)
    assert told == ["zebra"]


def test_a_spool_that_waits_makes_it_unknown(here):
    url = f"sqlite:///{here / 'events.db'}"
    emit('receive("order-1")', url)
    emit('sidelight.configure(relay="external"); receive("order-2")', url)
    code, states, _ = judged(url)
    assert (code, states) == (1, {"order-1": "overdue"})
    (here / "sidelight.toml").write_text(EXPECT)


class Hook(http.server.BaseHTTPRequestHandler):
    """Redirects the first request, which has therefore not arrived."""

    got: ClassVar[list] = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        type(self).got.append(json.loads(body))
        self.send_response(302 if len(type(self).got) == 1 else 204)
        self.end_headers()

    def log_message(self, *_):
        pass


def deliver(body, url):
    """Emit, and deliver what a busy machine has kept the process from delivering at its end."""
    emit(body, url)
    assert sidelight("relay", "--once", *of(url)).code == 0


def test_a_follower_tells_each_overdue_once_and_retries(here):
    url = f"sqlite:///{here / 'events.db'}"
    deliver('receive("order-1")', url)
    Hook.got = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    told, where = here / "told.jsonl", f"http://127.0.0.1:{server.server_port}"
    try:
        process = start(
            *("overdue", "--follow", "--every", "0.2", "--command", f"cat >> {told}"),
            *("--webhook", f"http://me:secret@{where[7:]}/secret?secret", *of(url)),
        )
        wait_for(lambda: len(Hook.got) == 2)
        deliver('receive("order-2")', url)
        wait_for(lambda: len(Hook.got) == 3)
        time.sleep(0.6)
        process.send_signal(signal.SIGINT)
        said = end(process)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert [each["artifact_id"] for each in Hook.got] == ["order-1", "order-1", "order-2"]
    assert [json.loads(line)["artifact_id"] for line in said.out.splitlines()] == [
        "order-1",
        "order-2",
    ]
    assert said.code == 0
    problem = f"the webhook failed for the overdue order-1: {where}/… answered 302; trying again"
    assert f"{problem} in 1 s" in said.err
    assert "secret" not in said.err
    assert [json.loads(line)["artifact_id"] for line in told.read_text().splitlines()] == [
        "order-1",
        "order-2",
    ]


def test_a_follower_tells_a_reason_once_although_its_seconds_change(monkeypatch, capsys):
    silent = iter([50, 60, 70])

    def look():
        found = Judgement([mock.Mock(state="unknown", process="i1")])
        found.unknown = [f"shop 7 (instance i1) has been silent for {next(silent)} s"]
        return found

    monkeypatch.setattr("sidelight.cli.store.alerts.time.sleep", lambda _: None)
    with pytest.raises(StopIteration):
        follow_overdue(look, channels_of(None, None), Told(None), 1)
    told = "unknown: shop 7 (instance i1) has been silent for 50 s"
    assert capsys.readouterr().err.splitlines() == [told]


def test_a_command_that_fails_is_tried_again(here):
    url = f"sqlite:///{here / 'events.db'}"
    deliver('receive("order-1")', url)
    script = here / "alert.sh"
    script.write_text(
        f"cat > {here}/got; test -e {here}/ready || {{ touch {here}/failed; exit 1; }}"
    )
    process = start("overdue", "--follow", "--every", "0.2", "--command", f"sh {script}", *of(url))
    wait_for((here / "failed").exists)
    (here / "ready").touch()
    assert json.loads(process.stdout.readline())["artifact_id"] == "order-1"
    process.send_signal(signal.SIGINT)
    said = end(process).err
    assert "the command failed for the overdue order-1: exit code 1; trying again in 1 s" in said


def test_a_restart_tells_nothing_twice(here):
    """Also a channel that was told, where another failed."""
    url = f"sqlite:///{here / 'events.db'}"
    deliver('receive("order-1"); pack("order-0")', url)
    options = ("overdue", "--follow", "--every", "0.2", "--state", here / "told.json", *of(url))
    paged = here / "paged"
    both = ("--command", f"cat >> {paged}; echo >> {paged}", "--webhook", "http://127.0.0.1:1/")
    process = start(*options, *both)
    problem = "the webhook failed for the overdue order-1: http://127.0.0.1:1/… was not reached"
    assert f"{problem}: Connection refused" in process.stderr.readline()
    process.kill()
    end(process)
    process = start(*options, *both)
    assert problem in process.stderr.readline()
    process.kill()
    end(process)
    assert paged.read_text().count("order-1") == 1
    process = start(*options)
    assert json.loads(process.stdout.readline())["artifact_id"] == "order-1"
    wait_for(lambda: json.loads((here / "told.json").read_text())["told"])
    process.kill()
    end(process)
    assert (here / "told.json").stat().st_mode & 0o777 == 0o600
    deliver('receive("order-2")', url)
    process = start(*options)
    assert json.loads(process.stdout.readline())["artifact_id"] == "order-2"
    deliver('pack("order-1"); pack("order-2")', url)  # no longer waited for
    wait_for(lambda: json.loads((here / "told.json").read_text()) == {"told": []})
    process.send_signal(signal.SIGINT)
    assert (end(process).code, process.returncode) == (0, 0)


def test_a_follower_waits_for_a_store_that_is_away(here):
    url = f"sqlite:///{here / 'events.db'}"
    deliver('receive("order-1"); pack("order-0")', url)
    process = start("overdue", "--follow", "--every", "0.1", *of(url))
    process.stdout.readline()
    (here / "events.db").rename(here / "away.db")
    assert "trying again" in process.stderr.readline()
    (here / "away.db").rename(here / "events.db")
    deliver('receive("order-2")', url)
    assert json.loads(process.stdout.readline())["artifact_id"] == "order-2"
    process.send_signal(signal.SIGINT)
    assert end(process).code == 0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--state", "told.json"), "--state needs --follow"),
        (("--command", "true"), "--command needs --follow"),
        (("--every", "1"), "--every needs --follow"),
        (("--follow", "--webhook", "nonsense"), "'nonsense' is no http or https URL"),
        (("--follow", "--webhook", "ftp://host/"), "is no http or https URL"),
        (("--follow", "--webhook", "http://host:x/"), "is no http or https URL"),
        (("--follow", "--state", "sidelight.toml"), "it holds something else"),
        (("--follow", "--state", "deep.json"), "it holds something else"),
        (("--follow", "--state", "."), "Is a directory"),
    ],
    ids=repr,
)
def test_bad_options_are_refused(here, options, told):
    url = f"sqlite:///{here / 'events.db'}"
    deliver('receive("order-1")', url)
    (here / "deep.json").write_text("[" * 100_000)
    said = sidelight("overdue", *options, *of(url), columns=200)
    assert said.code in {1, 2}
    assert told in said.err
