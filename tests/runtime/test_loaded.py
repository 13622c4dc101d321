"""What the process that emits loads: the modules of other packages, and the objects that a full
garbage collection walks.

This is the one table of both. A module that a delivery needs is added here, or is not imported.
"""

import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from tests.support.platforms import PLATFORM
from tests.support.stored import BACKENDS

pytestmark = pytest.mark.skipif(PLATFORM != "linux", reason="what hides names counts as well")

BASE = {"msgspec", "opentelemetry", "typing_extensions"}
#: Where the events go → the packages that may be loaded then, and how many objects there may be.
LOADED = {
    "nowhere": (BASE, 20_000),
    "sqlite": (BASE, 22_500),
    "postgresql": ({*BASE, "platformdirs", "psycopg", "psycopg_binary"}, 60_000),
    "otlp": (BASE, 25_000),
}
#: Modules of the standard library that cost a process more than sidelight is worth.
SLOW = {"asyncio", "email", "http", "ssl", "subprocess", "unittest"}
MAY_BE_SLOW = {"postgresql": SLOW, "otlp": SLOW}

CHILD = """
import gc, json, sys
before = set(sys.modules)
import sidelight
store, otlp = sys.argv[1:]
if not store:
    sidelight.emits("made", artifact_id="a1", mode="awaited")(lambda: None)
else:
    sidelight.configure(store, otlp=otlp or False)
    sidelight.emits("made", artifact_id="a1", mode="awaited")(lambda: None)()
    assert sidelight.flush(20)
gc.collect()
loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
print(json.dumps([sorted(loaded), len(gc.get_objects())]))
"""


class _Collector(BaseHTTPRequestHandler):
    """Takes every request of OTLP over HTTP."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def endpoint():
    with HTTPServer(("127.0.0.1", 0), _Collector) as server:
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


OWN = {
    *("sidelight", "sidelight.exceptions", "sidelight.version", "sidelight.host"),
    *("sidelight.host.clock", "sidelight.host.guard", "sidelight.host.imports"),
    *("sidelight.host.otel_api", "sidelight.host.log", "sidelight.host.platform"),
    *("sidelight.host.threads", "sidelight.host.turns"),
}
OF_THE_SYSTEM = {"errno", "fcntl", "importlib._abc", "importlib.util", "mmap"}
#: What a program says → the modules that it loads besides those of ``opentelemetry.trace``.
IMPORTED = {
    "import sidelight": OWN | OF_THE_SYSTEM,
    "from sidelight import emits, arg, choose, result, error, configure, flush, SidelightError": {
        *(OWN | OF_THE_SYSTEM),
        *("sidelight.points", "sidelight.points.decorator", "sidelight.points.expressions"),
        *("sidelight.runtime", "sidelight.runtime.configuration"),
    },
}
IMPORTING = """
import json, sys
import opentelemetry.trace
before = set(sys.modules)
exec(sys.argv[1])
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def output_of(*command, **environment):
    ran = subprocess.run(
        [sys.executable, *command],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.mark.parametrize("statement", IMPORTED)
def test_an_import_loads_little_beyond_the_api_of_opentelemetry(statement):
    assert {*output_of("-c", IMPORTING, statement)} <= IMPORTED[statement]


NEEDED = {"msgspec", "sidelight.emission", "sidelight.runtime.process", "sidelight.spool.writer"}


@pytest.mark.parametrize(
    ("statement", "environment"),
    [
        ("import sidelight; sidelight.emits('made', artifact_id='a1')(lambda: None)", {}),
        ("from sidelight import emit", {}),
        ("import sidelight.otel", {}),
        ("import sidelight", {"SIDELIGHT_STORE": "sqlite:///events.db"}),
        ("import sidelight", {"SIDELIGHT_STREAM": "kafka://localhost:9092/events"}),
    ],
)
def test_what_a_first_emission_needs_is_loaded_before_it(statement, environment):
    assert {*output_of("-c", IMPORTING, statement, **environment)} >= NEEDED


@pytest.mark.parametrize("where", LOADED)
def test_the_process_that_emits_loads_what_the_table_says(where, tmp_path, endpoint):
    store = "" if where == "nowhere" else BACKENDS.get(where, BACKENDS["sqlite"])(tmp_path)
    arguments = [store, endpoint if where == "otlp" else ""]
    loaded, objects = output_of("-W", "error::ImportWarning", "-c", CHILD, *arguments)
    packages, most = LOADED[where]
    foreign = {name for name in loaded if name not in sys.stdlib_module_names} - {"sidelight"}
    assert {
        name
        for name in foreign
        if not name.startswith(("__", "_cython", "cython", "_sysconfigdata"))
    } <= packages
    assert SLOW.intersection(loaded) <= MAY_BE_SLOW.get(where, set())
    if sys.version_info >= (3, 14):  # the same modules have a fifth more objects
        most *= 1.25
    assert objects < most
