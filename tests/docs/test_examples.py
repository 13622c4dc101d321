"""The code that the pages show runs, and prints what they show."""

from __future__ import annotations

import itertools
import json
import os
import shlex
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.docs.pages import RUNS, every_page
from tests.support import warm
from tests.support.kafka import broker, java
from tests.support.postgres import new_database

BUDGETS = {"budget=10ms": "budget=10s"}
"""Of a page's own tests: a busy machine keeps none of a few milliseconds."""
COLLECTOR = "localhost:4318"
"""An OTLP endpoint, in the URLs of the pages."""
KAFKA, TOPIC = "localhost:9092", "shop.events"
"""A broker of Kafka and its topic, on the pages."""
DATABASE = "localhost/shop"
"""A PostgreSQL database, in the URLs of the pages."""


def steps_of(page):
    """The blocks of a page that run or are compared, in the order in which a reader meets them."""
    for block in page.blocks:
        assert block.mark != "skip" or block.value, f"{page.name}:{block.line}: skip has no reason"
        if block.mark in {"file", "output"} or (block.language in RUNS and block.mark != "skip"):
            yield {
                "page": page.name,
                "line": block.line,
                "language": block.language,
                "text": block.text,
                "mark": block.mark,
                "value": block.value,
            }


@contextmanager
def collector():
    """Serve OTLP over HTTP; yields the address, and the list of paths that were asked for."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    "page", [page for page in every_page() if list(steps_of(page))], ids=lambda page: page.name
)
def test_what_a_page_shows_runs(page, tmp_path):
    steps = list(steps_of(page))
    home = tmp_path / "home"
    home.mkdir()
    (home / "bin").mkdir()
    warm.put_command(home / "bin")
    shop = DATABASE
    if any(f"://{DATABASE}" in step["text"] for step in steps):
        shop = new_database().partition("://")[2]
    kafka_names = {}
    if any(KAFKA in step["text"] for step in steps):
        servers, _, topic = broker().new_topic().removeprefix("kafka://").partition("/")
        kafka_names = {KAFKA: servers, TOPIC: topic}
        console_consumer(home)
    with collector() as (address, asked):
        names = {COLLECTOR: address, DATABASE: shop, **BUDGETS, **kafka_names}
        for step, (shown, real) in itertools.product(steps, names.items()):
            step["text"] = step["text"].replace(shown, real)
        (home / "steps.json").write_text(json.dumps(steps), encoding="utf-8")
        work = tmp_path / "work"
        work.mkdir()
        runner = Path(__file__).with_name("runner.py")
        done = subprocess.run(
            [sys.executable, "-W", "error", runner, home / "steps.json"],
            cwd=work,
            env=environment(home),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    if any(address in step["text"] for step in steps):
        assert {"/v1/traces", "/v1/logs"} <= set(asked)


def console_consumer(home):
    """Put Kafka's own consumer on the path, by the name that it has in Kafka's package."""
    command = shlex.join(java("org.apache.kafka.tools.consumer.ConsoleConsumer"))
    script = home / "bin" / "kafka-console-consumer.sh"
    script.write_text(f'#!/bin/sh\nexec {command} "$@"\n', encoding="utf-8")
    script.chmod(0o755)


def environment(home):
    """The environment of a fresh user: this Python's commands on the path, warnings are errors."""
    bin_directory = str(Path(sys.executable).parent)
    return {
        "PATH": os.pathsep.join(
            [str(home / "bin"), bin_directory, os.environ.get("PATH", os.defpath)]
        ),
        "HOME": str(home),
        "XDG_STATE_HOME": str(home / "state"),
        "LANG": "C.UTF-8",
        "PYTHONWARNINGS": "error",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYDANTIC_DISABLE_PLUGINS": "__all__",
        "PYTEST_ADDOPTS": "-p no:cacheprovider -p sidelight.testing.pytest_plugin",
    }
