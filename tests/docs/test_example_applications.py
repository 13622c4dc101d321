"""The applications in docs/examples, with their real parts."""

import os
import shutil
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

import pytest
from tests.docs.pages import ROOT
from tests.support.commands import sidelight
from tests.support.ports import free_ports
from tests.support.postgres import new_database

from sidelight import Store

EXAMPLES = ROOT / "docs" / "examples"


def requires(*modules):
    for name in modules:
        pytest.importorskip(name, reason=f"no {name}: pip install -e '.[test]'")


@pytest.fixture
def home(tmp_path):
    """A directory with the examples, and nothing of the developer's."""
    shutil.copytree(EXAMPLES, tmp_path, dirs_exist_ok=True)
    return tmp_path


def environment(home, **more):
    names = ("PATH", "VIRTUAL_ENV", "LANG")
    kept = {name: os.environ[name] for name in names if name in os.environ}
    return {**kept, "HOME": str(home), "XDG_STATE_HOME": str(home / "state"), **more}


def run(home, *arguments, code=0, **more):
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=home,
        env=environment(home, **more),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert not (home / "state").exists()
    return done.stdout


def delivered(home):
    """The events of the store in a directory, those of dead processes included."""
    url = f"sqlite:///{home}/events.db"
    sidelight("relay", "--once", "--store", url)
    with Store(url) as store:
        return list(store.events())


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_a_batch(home, method):
    requires("joblib", "pandas", "tenacity")
    run(home, "batch.py", method)
    events = delivered(home)
    types = ("shop_summed", "sending_failed", "sending_tried", "report_sent", "shop_archived")
    assert Counter((e.type, e.artifact_id) for e in events) == dict.fromkeys(
        [(type_, shop) for type_ in types for shop in ("north", "south")], 1
    )
    assert {event.attributes["run"] for event in events} == {f"by {method}"}
    totals = {e.artifact_id: e.attributes["total"] for e in events if e.type == "shop_summed"}
    assert totals == {"north": 4.5, "south": 2.0}


def test_commands_of_click_and_typer(home):
    assert run(home, "greetings.py", "bob", "--times", "2") == "hello bob\n" * 2
    run(home, "greetings.py", "bob", "--times", "0", code=2)
    assert run(home, "counting.py", "up", "3") == "1 2 3\n"
    run(home, "counting.py", "up", "300", code=2)
    told = [(event.type, event.attributes.get("error.type")) for event in delivered(home)]
    assert [type_ for type_, _ in told] == ["greeted", "not_greeted", "counted", "not_counted"]
    assert [bool(error) for _, error in told] == [False, True, False, True]


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["alone", "in parallel"])
def test_tests_of_an_application_with_a_factory(home, options):
    requires("freezegun", "xdist")
    (home / "pytest.ini").write_text("[pytest]\n")
    chosen = ["-psidelight.testing.pytest_plugin", "-pxdist"]  # other plugins are slow to load
    alone = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    told = run(home, "-m", "pytest", "-q", *chosen, "test_shop.py", *options, **alone)
    assert "3 passed" in told
    assert not (home / "production.db").exists()


def test_a_notebook(home):
    requires("IPython", "ipykernel", "matplotlib", "nbclient", "nbformat", "pandas")
    code = """
        import nbformat, nbclient
        notebook = nbformat.read("latencies.ipynb", as_version=4)
        nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
        print(sum("image/png" in output.get("data", ()) for output in outputs))
    """
    assert run(home, "-W", "ignore", "-c", textwrap.dedent(code)) == "1\n"
    versions = Counter(event.attributes["version"] for event in delivered(home))
    assert versions == {"first": 5, "second": 5}


@pytest.fixture
def web(home):
    """The web application, on two workers; gives its address."""
    requires("fastapi", "uvicorn", "websockets")
    database = new_database().replace("postgresql:", "postgresql+psycopg:")
    port = free_ports(1)[0]
    settings = environment(home, DATABASE=database, SIDELIGHT_STORE="sqlite:///events.db")
    create = "web.Base.metadata.create_all(sqlalchemy.create_engine(web.DATABASE))"
    code = f"import sqlalchemy, web; {create}"
    subprocess.run([sys.executable, "-c", code], cwd=home, env=settings, check=True, timeout=120)
    command = [sys.executable, "-m", "uvicorn", "web:app", "--workers", "2", "--port", str(port)]
    with subprocess.Popen([*command, "--log-level", "error"], cwd=home, env=settings) as server:
        try:
            address = f"127.0.0.1:{port}"
            until = time.monotonic() + 120
            while not _answers(f"http://{address}/openapi.json"):
                assert time.monotonic() < until and server.poll() is None
                time.sleep(0.1)
            yield address
        finally:
            server.terminate()
            server.wait(60)


def _answers(url, method="GET", **headers):
    try:
        asked = urllib.request.Request(url, method=method, headers=headers)
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def test_a_web_application(home, web):
    client = pytest.importorskip("websockets.sync.client")
    for number in range(4):
        _answers(f"http://{web}/orders/tea", "POST", **{"x-request-id": f"r{number}"})
    assert _answers(f"http://{web}/orders/broken", "POST") == 500
    assert _answers(f"http://{web}/lists/tea").splitlines() == ["tea 0", "tea 1", "tea 2"]
    with client.connect(f"ws://{web}/chat") as socket:
        socket.send("hello")
        assert socket.recv() == "HELLO"
    url = f"sqlite:///{home}/events.db"
    until, events = time.monotonic() + 60, []
    while time.monotonic() < until and len(events) < 11:
        time.sleep(0.2)
        if Path(home / "events.db").exists():
            with Store(url) as store:
                events = list(store.events())
    found = Counter(event.type for event in events)
    assert found == {
        "order_placed": 4,
        "mail_sent": 4,
        "list_streamed": 1,
        "chat_began": 1,
        "chat_ended": 1,
    }
    for type_ in ("order_placed", "mail_sent"):
        requests = {e.attributes["request_id"] for e in events if e.type == type_}
        assert requests == {"r0", "r1", "r2", "r3"}
