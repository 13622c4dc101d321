"""The Deployment of consumers on the page on Kafka: its command, its probe and its bounds hold."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from tests.docs.pages import ROOT, Page
from tests.support import kafka
from tests.support.consuming import environment
from tests.support.programs import stored, wait_until
from tests.support.stored import NOON, batches_of, record, sqlite

from sidelight.exceptions import SinkUnavailableError
from sidelight.stream import StreamSink

EVENTS = 30_000  # more than two batches
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def pod():
    (block,) = (
        each for each in Page(ROOT / "docs/how-to/kafka.md").blocks if each.language == "yaml"
    )
    return yaml.safe_load(block.text)["spec"]["template"]["spec"]


def send(topic):
    sink = StreamSink(topic, {})
    events = [
        record(at=NOON + n, artifact=f"a{n}", attributes={"n": "x" * 400}) for n in range(EVENTS)
    ]
    until = time.monotonic() + 60
    for batch in batches_of(events, 5_000):
        while True:
            try:
                sink.write(batch, {})
                break
            except SinkUnavailableError:
                assert time.monotonic() < until
    sink.close()


def test_the_consumers_pod_runs_as_the_page_says(pod, tmp_path):
    (container,) = pod["containers"]
    topic, url = kafka.broker().new_topic(partitions=3), sqlite(tmp_path)
    send(topic)
    given = {each["name"] for each in container["env"]}
    assert given == {"SIDELIGHT_STREAM", "SIDELIGHT_SPOOL"}
    env = environment() | {
        "SIDELIGHT_STREAM": topic,
        "SIDELIGHT_SPOOL": str(tmp_path / "spool"),
        "SIDELIGHT_STORE": url,
    }
    command = [sys.executable, "-m", *container["command"]]
    quiet = {"stdin": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    running = subprocess.Popen(command, env=env, **quiet)
    try:
        wait_until(lambda: stored(url) == EVENTS, 120)
        probe = container["readinessProbe"]["exec"]["command"]
        ready = subprocess.run(
            [sys.executable, "-m", *probe], env=env, capture_output=True, text=True, check=False
        )
        assert ready.returncode == 0, ready.stdout + ready.stderr
        status = Path(f"/proc/{running.pid}/status").read_text()
        peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024
        limit = container["resources"]["limits"]["memory"]
        assert peak < int(limit.removesuffix("Mi")) * MIB
        running.terminate()
        assert running.wait(pod["terminationGracePeriodSeconds"]) == 0
    finally:
        running.kill()
        running.wait()
