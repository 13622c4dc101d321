"""The applications in docs/examples, with their real parts."""

import contextlib
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url
from tests.docs.pages import ROOT, every_page, page, rows
from tests.support.commands import sidelight
from tests.support.ports import free_ports
from tests.support.postgres import new_database

from sidelight import Store, configure, emit, flush

EXAMPLES = ROOT / "docs" / "examples"
HERE = Path(__file__).name


def steps(name):
    """The arguments of the commands on a page, without those that prepare the machine."""
    shown = [block for block in page(f"how-to/{name}.md").blocks if HERE in block.value]
    lines = re.findall(r"^\$ (?!pip|createdb|export)(.+)$", shown[0].text, re.MULTILINE)
    assert len(shown) == 1
    return [[*filter(lambda word: word != "python", shlex.split(line))] for line in lines]


def requires(*modules):
    """Skip where a module is missing; import none, because IPython changes what a point keeps."""
    for name in modules:
        if find_spec(name) is None:
            pytest.skip(f"no {name}: pip install -e '.[test]'")


@pytest.fixture
def home(tmp_path):
    """A directory with the examples, and nothing of the developer's."""
    shutil.copytree(EXAMPLES, tmp_path, dirs_exist_ok=True)
    return tmp_path


def environment(home, **more):
    names = ("PATH", "VIRTUAL_ENV", "LANG", "PYDANTIC_DISABLE_PLUGINS")
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


def delivered(home, name="events.db"):
    """The events of a store in a directory, those of dead processes included."""
    url = f"sqlite:///{home}/{name}"
    sidelight("relay", "--once", "--store", url)
    with Store(url) as store:
        return list(store.events())


@contextlib.contextmanager
def program(home, *command, **more):
    """A program that serves until the block ends."""
    command = [sys.executable, "-m", *command]
    with subprocess.Popen(command, cwd=home, env=environment(home, **more)) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait(60)


def until_it_listens(port, process):
    until = time.monotonic() + 120
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 60).close()
        except OSError:
            assert time.monotonic() < until and process.poll() is None
            time.sleep(0.1)


def until_stored(home, count):
    """The events of the store in a directory, as soon as there are so many."""
    until, events = time.monotonic() + 300, []
    while time.monotonic() < until and len(events) < count:
        time.sleep(0.2)
        if (home / "events.db").exists():
            with Store(f"sqlite:///{home}/events.db") as store:
                events = list(store.events())
    return events


def test_each_page_with_an_example_is_run():
    told = {each.path.stem for each in every_page() if any(HERE in b.value for b in each.blocks)}
    assert told == set(re.findall(r'steps\("([\w-]+)"\)', Path(__file__).read_text()))


def test_each_example_has_a_page_of_its_tool():
    index = page("how-to/example-applications.md")
    for told, examples, _ in rows(index.text):
        name = re.search(r"\(([\w-]+\.md)", told)[1]
        linked = page(f"how-to/{name}").links
        assert set(re.findall(r"\(([^)]+)\)", examples)) <= set(linked), name
    listed = {Path(link).name for link in index.links if link.startswith("../examples/")}
    assert listed == {each.name for each in EXAMPLES.iterdir() if each.name != "__pycache__"}


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_a_batch(home, method):
    requires("joblib", "pandas", "tenacity")
    assert steps("batches") == [["batch.py", "spawn"]]
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
    greet, count = steps("command-lines")
    assert run(home, *greet) == "hello bob\n" * 2
    run(home, "greetings.py", "bob", "--times", "0", code=2)
    assert run(home, *count) == "1 2 3\n"
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
    assert steps("testing") == [["pytest", "test_shop.py", "-n", "2"]]
    told = run(home, "-m", "pytest", "-q", *chosen, "test_shop.py", *options, **alone)
    assert "3 passed" in told
    assert not (home / "production.db").exists()


def test_a_notebook_run_by_a_command_that_a_map_traces(home):
    requires("IPython", "ipykernel", "matplotlib", "nbclient", "pandas")
    jupyter = str(Path(sys.executable).with_name("jupyter"))
    command, _ = steps("without-touching-the-code")
    assert steps("notebooks") == [["jupyter", "notebook", "latencies.ipynb"]]
    notebook = json.loads((home / "latencies.ipynb").read_text())
    again = [{**cell, "id": f"{cell['id']}-again"} for cell in notebook["cells"][1:3]]
    notebook["cells"][3:3] = again
    (home / "latencies.ipynb").write_text(json.dumps(notebook))
    *traced, _, execute, name = ["-m", *command]
    run(home, *traced, jupyter, execute, "--timeout=120", "--output=done", name)
    notebook = json.loads((home / "done.ipynb").read_text())
    cells = notebook["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    assert sum("image/png" in output.get("data", ()) for output in outputs) == 1
    told = Counter((event.type, event.attributes.get("version")) for event in delivered(home))
    assert told == {("rounded", None): 2, ("converted", "first"): 5, ("converted", "second"): 5}
    executed = [(event.type, event.artifact_id) for event in delivered(home, "cells.db")]
    code = [cell["id"] for cell in cells if cell["cell_type"] == "code"]
    assert executed == [("cell_executed", id_) for id_ in code]

    cell = {**cells[1], "source": "1 / 0"}
    (home / "broken.ipynb").write_text(json.dumps({**notebook, "cells": [cell]}))
    run(home, *traced, jupyter, execute, "broken.ipynb", code=1)
    *_, failed = delivered(home, "cells.db")
    assert (failed.type, failed.attributes["error"]) == ("cell_failed", "ZeroDivisionError")


def test_django_and_celery(home):
    requires("celery", "django", "gunicorn")
    httpx = pytest.importorskip("httpx", reason="no httpx: pip install -e '.[test]'")
    port, tickets = free_ports(1)[0], {}
    address = f"http://127.0.0.1:{port}"
    settings = {"DJANGO_SETTINGS_MODULE": "tickets.settings", "SECRET_KEY": "s"}
    settings |= {f"DJANGO_SUPERUSER_{name}": "ann" for name in ("USERNAME", "PASSWORD")}
    settings["DJANGO_SUPERUSER_EMAIL"] = "ann@example.org"
    outbox, migrate, create, server, worker = steps("django-and-celery")
    run(home, "-m", *outbox, **settings)
    run(home, *migrate, "--verbosity=0", **settings)
    run(home, *create, "--noinput", "--verbosity=0", **settings)
    server += [f"--bind=127.0.0.1:{port}", "--log-level=error"]
    worker += ["--concurrency=2", "--loglevel=ERROR", "--without-mingle", "--without-gossip"]
    with (
        program(home, *server, **settings) as serving,
        program(home, *worker, **settings),
        httpx.Client(base_url=address, timeout=60, follow_redirects=True) as client,
    ):
        until_it_listens(port, serving)
        for seat in ("A1", "A2"):
            tickets[seat] = client.get(f"/buy/{seat}", headers={"x-request-id": seat}).json()
        assert client.get("/buy/broken").status_code == 500
        events = until_stored(home, 6)
        login = client.get("/admin/login/?next=/admin/tickets/event/")
        token = {"csrfmiddlewaretoken": login.cookies["csrftoken"]}
        page = client.post(login.url, data={"username": "ann", "password": "ann", **token})
        added = client.get("/admin/tickets/event/add/").status_code
    for seat, ticket in tickets.items():
        told = [e for e in events if e.artifact_id == str(ticket["ticket"])]
        assert [e.type for e in told] == ["ticket_sold", "printing_failed", "ticket_printed"]
        assert told[0].attributes == {"seat": seat, "request_id": seat}
    assert page.text.count('class="field-type"') == 6
    assert added == 403


def test_django_reads_events_in_postgresql(home):
    requires("celery", "django")
    url = new_database()
    configure(url, spool=home / "spool")
    emit("ticket_sold", artifact_id=7, seat="A1")
    assert flush(60)
    database = make_url(url)
    place = {"HOST": database.host, "PORT": database.port, "USER": database.username}
    place |= {"NAME": database.database, "OPTIONS": {"options": "-c search_path=sidelight"}}
    place["ENGINE"] = "django.db.backends.postgresql"
    settings = f"from tickets.settings import *\nDATABASES['events'] = {place}\n"
    (home / "elsewhere.py").write_text(settings)
    code = "import django; django.setup(); from tickets.models import Event as E; "
    code += "print(*E.objects.values_list('type', 'artifact_id', 'attributes'))"
    told = run(home, "-c", code, DJANGO_SETTINGS_MODULE="elsewhere", SECRET_KEY="s")
    assert told == "('ticket_sold', '7', {'seat': 'A1'})\n"


@pytest.fixture
def web(home):
    """The web application, on two workers; gives its address."""
    requires("fastapi", "uvicorn", "websockets")
    database = new_database().replace("postgresql:", "postgresql+psycopg:")
    port = free_ports(1)[0]
    settings = {"DATABASE": database, "SIDELIGHT_STORE": "sqlite:///events.db"}
    create, serve = steps("fastapi")
    run(home, *create, **settings)
    with program(home, *serve, "--port", str(port), "--log-level", "error", **settings) as server:
        until_it_listens(port, server)
        yield f"127.0.0.1:{port}"


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
    listed = _answers(f"http://{web}/lists/tea", **{"x-request-id": "r-list"})
    assert listed.splitlines() == ["tea 0", "tea 1", "tea 2"]
    with client.connect(f"ws://{web}/chat") as chat:
        chat.send("hello")
        assert chat.recv() == "HELLO"
    events = until_stored(home, 11)
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
    assert [e.attributes for e in events if e.type == "list_streamed"] == [{"request_id": "r-list"}]
