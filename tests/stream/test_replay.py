"""What a store holds is sent again, with the same ids."""

import json
import signal
import subprocess
import sys

import pytest
from tests.docs.test_examples import collector
from tests.stream.test_consume import RECORDS, content
from tests.support import kafka
from tests.support.consuming import consume_once, environment
from tests.support.stored import store as store_directly

from sidelight import Store


@pytest.fixture
def url(tmp_path):
    url = f"sqlite:///{tmp_path / 'events.db'}"
    store_directly(url, RECORDS)
    return url


def replay(url, *options, code=0):
    command = [sys.executable, "-m", "sidelight", "replay", "--store", url, "--json", *options]
    ran = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=90, check=False
    )
    assert ran.returncode == code, ran.stderr
    return json.loads(ran.stdout) if ran.stdout else ran.stderr


def test_the_stream_gives_the_same_rows(url, tmp_path):
    topic = kafka.broker().new_topic()
    with Store(url) as store:
        ids = [event.event_id for event in store.events()]
    told = replay(url, "--to", "stream", "--stream", topic, "--until", "2026-07-26")
    assert told == {"sent": 400, "last": ids[-1], "problem": None}
    told = replay(url, "--to", "stream", "--stream", topic, "--after", ids[299])
    assert told["sent"] == 100
    chosen = ("--type", "type1", "--since", "2026-07-25")
    assert replay(url, "--to", "stream", "--stream", topic, *chosen)["sent"] == 133
    again = f"sqlite:///{tmp_path / 'again.db'}"
    consume_once(topic, again, tmp_path / "spool")
    sent = content(again)
    for table, rows in content(url).items():
        assert sent[table] == (rows if "deliveries" not in table else [])  # of no process


def test_an_endpoint_gets_log_records(url):
    with collector() as (address, asked):
        told = replay(url, "--to", "otlp", "--otlp", f"http://{address}", "--artifact", "a3")
    assert set(asked) == {"/v1/logs"}
    assert told["problem"] is None
    assert told["sent"] > 10


def test_a_wait_for_an_endpoint_is_told_at_once(url):
    command = [sys.executable, "-m", "sidelight", "replay", "--store", url, "--to", "otlp"]
    with subprocess.Popen(
        [*command, "--otlp", "http://127.0.0.1:1"],
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr.readline().startswith("waiting for http://127.0.0.1:1: no answer")
        assert process.poll() is None
        process.terminate()
        process.stderr.read()


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT], ids=lambda s: s.name)
def test_a_run_that_is_ended_names_the_last_event_that_was_sent(url, ending):
    with Store(url) as store:
        last = [event.event_id for event in store.events()][299]
    command = [sys.executable, "-m", "sidelight", "replay", "--store", url, "--to", "otlp"]
    with subprocess.Popen(
        [*command, "--otlp", "http://127.0.0.1:1", "--after", last],
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr.readline().startswith("waiting for http://127.0.0.1:1: no answer")
        process.send_signal(ending)
        assert process.stderr.read().splitlines()[-1] == f"interrupted; go on with --after {last}"
    assert process.returncode == 1


def test_a_stream_that_is_not_named_is_refused(url):
    assert "name it with --stream URL" in replay(url, "--to", "stream", code=1)
