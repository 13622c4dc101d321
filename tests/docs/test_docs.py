"""What README and docs show runs, and what they name is there."""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import typer.main
from tests.docs.pages import ROOT, RUNS, every_page
from tests.support.postgres import new_database

import sidelight
from sidelight.cli import app
from sidelight.cli.doctor.remedies import REMEDIES, remedy_for
from sidelight.settings import Settings
from sidelight.store import schema

SOURCES = sorted((ROOT / "src" / "sidelight").rglob("*.py"))
REFERENCE = ROOT / "docs" / "reference"
COLLECTOR = "localhost:4318"
DATABASE = "localhost/shop"
"""A PostgreSQL, in the URLs of pages that use one."""
NAMED = pytest.mark.parametrize("page", every_page(), ids=lambda page: page.name)


# -- what is shown runs ----------------------------------------------------------------------


def steps_of(page):
    """The blocks of a page that do something, in the order in which a reader comes to them."""
    for block in page.blocks:
        assert block.mark != "skip" or block.value, f"{page.name}:{block.line}: skip says not why"
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
    """Something that takes OTLP over HTTP; it gives its address and the paths asked for."""
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
    shop = DATABASE
    if any(f"://{DATABASE}" in step["text"] for step in steps):
        shop = new_database().partition("://")[2]
    with collector() as (address, asked):
        for step in steps:
            step["text"] = step["text"].replace(COLLECTOR, address).replace(DATABASE, shop)
        (home / "steps.json").write_text(json.dumps(steps), encoding="utf-8")
        work = tmp_path / "work"
        work.mkdir()
        done = subprocess.run(
            [
                sys.executable,
                "-W",
                "error",
                Path(__file__).with_name("runner.py"),
                home / "steps.json",
            ],
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


def environment(home):
    """A user's, with this Python's commands on the path and every warning an error."""
    bin_directory = str(Path(sys.executable).parent)
    return {
        "PATH": os.pathsep.join([bin_directory, os.environ.get("PATH", os.defpath)]),
        "HOME": str(home),
        "XDG_STATE_HOME": str(home / "state"),
        "LANG": "C.UTF-8",
        "PYTHONWARNINGS": "error",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTEST_ADDOPTS": "-p no:cacheprovider -p sidelight.testing.pytest_plugin",
    }


@NAMED
def test_blocks_say_what_they_are(page):
    for block in page.blocks:
        assert block.language, f"{page.name}:{block.line}: a block without a language"
        assert block.language != "output", f"{page.name}:{block.line}: nobody compares it"
        if block.language == "python":
            compile(block.text, page.name, "exec")


# -- what is linked is there -----------------------------------------------------------------


@NAMED
def test_links_lead_somewhere(page):
    anchors = {each.path: each.anchors for each in every_page()}
    for link in page.links:
        if link.startswith(("https://", "http://", "mailto:")):
            continue
        target, _, fragment = link.partition("#")
        path = (page.path.parent / target).resolve() if target else page.path
        assert path.exists(), f"{page.name}: {link}"
        assert path.is_relative_to(ROOT), f"{page.name}: {link}"
        if fragment:
            assert fragment in anchors[path], f"{page.name}: {link}; there are {anchors[path]}"


def test_every_page_is_in_the_index():
    index = next(page for page in every_page() if page.name == "docs/README.md")
    linked = {(index.path.parent / link.partition("#")[0]).resolve() for link in index.links}
    missing = {page.name for page in every_page() if page.path not in linked} - {
        "README.md",
        index.name,
    }
    assert not missing


# -- what is named exists, and what exists is named ------------------------------------------


def code():
    return "\n".join(path.read_text(encoding="utf-8") for path in SOURCES)


def everything_written():
    return "\n".join(page.text for page in every_page())


def reference(name):
    return (REFERENCE / name).read_text(encoding="utf-8")


def test_our_environment_variables_are_the_documented_ones():
    ours = re.compile(r"\bSIDELIGHT_[A-Z_]+\b")
    in_code, in_docs = set(ours.findall(code())), set(ours.findall(everything_written()))
    assert in_docs == in_code
    assert set(ours.findall(reference("configuration.md"))) == in_code


def test_opentelemetrys_variables_are_known_and_documented():
    """Ours are read by name or as a pattern; the exporters read theirs themselves."""
    read = set(re.findall(r"\bOTEL_[A-Z_{}a-z]*[A-Z}](?![\w{*])", code()))
    patterns = [re.compile(re.sub(r"\{\w+\}", "[A-Z_]+", name)) for name in read]
    variable = re.compile(r"\bOTEL_[A-Z_]*[A-Z](?![\w*])")
    documented = set(variable.findall(everything_written()))
    for name in documented:
        known = any(pattern.fullmatch(name) for pattern in patterns)
        assert known or name in exporters_variables(), name
    page = set(variable.findall(reference("configuration.md")))
    for pattern in patterns:
        assert any(pattern.fullmatch(name) for name in page), pattern.pattern


def exporters_variables():
    from opentelemetry.sdk import environment_variables  # noqa: PLC0415

    return {
        value
        for name, value in vars(environment_variables).items()
        if name.startswith("OTEL_EXPORTER_OTLP")
    }


def commands():
    """name → its options, as the command line has them."""
    return {
        name: {
            option
            for parameter in command.params
            for option in (*parameter.opts, *parameter.secondary_opts)
            if option.startswith("-")
        }
        - {"--help", "-h"}
        for name, command in below(typer.main.get_command(app))
    }


def below(group):
    """The commands of a group by their names, and those below them."""
    for name, command in group.commands.items():
        yield name, command
        if hasattr(command, "commands"):
            yield from ((f"{name} {last}", each) for last, each in below(command))


def test_the_commands_are_the_documented_ones():
    text = reference("cli.md")
    sections = re.split(r"^## `?sidelight ([a-z]+(?: [a-z]+)?)", text, flags=re.MULTILINE)
    documented = dict(zip(sections[1::2], sections[2::2], strict=True))
    assert documented.keys() == commands().keys()
    for name, options in commands().items():
        assert set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*\b", documented[name])) == options, name


@NAMED
def test_commands_that_a_page_names_are_there(page):
    known = commands()
    shown = re.findall(r"`([^`]*)`", page.prose)
    shown += [
        line
        for b in page.blocks
        for line in b.text.splitlines()
        if b.language in {"console", "text"}
    ]
    for line in shown:
        for name, rest in re.findall(
            r"(?:^|\$ |-m |/|[A-Z]=\S+ )sidelight ([a-z]+)\b([^|&;]*)", line
        ):
            assert name in known, f"{page.name}: {line}"
            whole = f"{name} {rest.split()[0]}" if rest.split() else name
            for option in re.findall(r"(?<!\S)--?[a-z][a-z-]*", rest):
                assert option in known.get(whole, known[name]) | {"--help", "-h"}, (
                    f"{page.name}: {line}"
                )


def test_the_public_face_is_documented():
    text = everything_written()
    for name in sidelight.__all__:
        assert re.search(rf"\b{re.escape(name)}\b", text), name
    for function, page in (
        (sidelight.configure, "configuration.md"),
        (sidelight.emits, "decorator.md"),
    ):
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.kind is not parameter.VAR_KEYWORD:
                assert f"`{name}" in reference(page), f"{name} of {function.__name__}"


def test_defaults_are_the_documented_ones():
    text = reference("configuration.md")
    defaults = inspect.signature(sidelight.configure).parameters
    assert f'`"{defaults["relay"].default}"`' in text
    assert Settings.__dataclass_fields__["deadline"].default == defaults["deadline"].default
    assert f"{defaults['deadline'].default:.3f}" in text
    assert f"{defaults['spool_limit'].default // 2**30} GiB" in text


def test_the_tables_are_the_documented_ones():
    sections = re.split(r"^## `(\w+)`", reference("store.md"), flags=re.MULTILINE)
    documented = {
        table: set(re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE))
        for table, text in zip(sections[1::2], sections[2::2], strict=True)
    }
    actual = {
        table.name: {column.name for column in table.columns}
        for table in schema.metadata.sorted_tables
    }
    assert documented == actual


def reasons_in(path):
    """What is given to `lost`, `count` and `_quarantine` as the reason."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", "")).strip("_")
        if name in {"lost", "count", "quarantine"}:
            given = ast.unparse(node.args[name == "quarantine"]) if node.args else ""
            reason = given.lstrip("f").strip("'\"")
            if given != reason and " " in reason:
                yield re.sub(r"\{.+?\}", "…", reason)
    source = path.read_text(encoding="utf-8")
    yield from re.findall(r"_lost\('([^']+)'", source)
    yield from re.findall(r"_losses\['([^']+)'\] =", source)


def test_the_reasons_of_loss_are_the_documented_ones():
    in_code = {reason for path in SOURCES for reason in reasons_in(path)}
    in_docs = set(re.findall(r"^\| `([^`]+)` \|", reference("losses.md"), flags=re.MULTILINE))
    assert in_docs == in_code


def test_the_doctor_knows_what_helps_against_each_loss():
    in_docs = set(re.findall(r"^\| `([^`]+)` \|", reference("losses.md"), flags=re.MULTILINE))
    assert in_docs <= REMEDIES.keys()
    for reason in in_docs:
        assert remedy_for(reason.replace("…", "something")) == REMEDIES[reason]
    assert remedy_for("something else") == ""


def said_by(*modules):
    """What is written in a module as text; "…" where a value is put in."""
    for name in modules:
        tree = ast.parse((ROOT / "src/sidelight/cli" / f"{name}.py").read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                parts = (
                    part.value if isinstance(part, ast.Constant) else "…" for part in node.values
                )
                yield "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_what_the_doctor_says_is_what_the_page_says():
    said = [*said_by("backlog", "doctor", "endpoint", "processes", "room", "stored")]
    said += [f"{reason}: …" for reason in REMEDIES]
    shown = re.findall(r"^\|[^|]+\| (\w+) \| (.+) \|$", reference("doctor.md"), flags=re.MULTILINE)
    assert len(shown) > 20
    for check, words in shown:
        assert check in {*said, "check"}
        for phrase in re.findall(r"`([^`]+)`", words):
            for piece in phrase.split("…"):
                assert any(piece.strip(" ,:") in each for each in said), phrase


def test_nothing_of_a_machine_is_written_down():
    for page in every_page():
        assert not re.search(r"(?<![\w.])/(?:home|root|work|Users)/", page.text), page.name
    assert any(point.name == "sidelight" for point in entry_points(group="console_scripts"))
