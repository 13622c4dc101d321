"""`sidelight run`: programs under a map, without a change of their code."""

import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
from tests.support.commands import of, sidelight

from sidelight import Store

APP = """
import sys
import subprocess
import shop

if __name__ == "__main__":
    print(shop.send(sys.argv[1]), "sitecustomized" if hasattr(sys, "customized") else "plain")
    if sys.argv[1] == "parent":
        sys.exit(subprocess.run([sys.executable, "-m", "app", "child"]).returncode or 3)
    import sidelight
    assert sidelight.flush(30)
"""
SHOP = """
def send(order):
    return order
"""
MAP = """
[[point]]
function = "shop:send"
success = "sent"
artifact_id = "arg.order"
"""


@pytest.fixture
def app(tmp_path, monkeypatch):
    for name, text in {"app.py": APP, "shop.py": SHOP, "sidelight.toml": MAP}.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


RUN = [sys.executable, "-m", "sidelight", "run"]


def run(*arguments, **environment):
    return started([*RUN, *map(str, arguments)], **environment)


def refused(*arguments):
    """What the command says in this process, where it must not become the program."""
    with mock.patch("os.execv", side_effect=AssertionError("it runs")):
        said = sidelight("run", *arguments)
    assert (said.code != 0, said.out) == (True, "")
    return said


def beside(name):
    """A command of the environment of this interpreter."""
    return str(Path(sys.executable).with_name(name))


def started(command, **environment):
    return subprocess.run(
        command,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def artifacts(path):
    with Store(f"sqlite:///{path}") as store:
        return [event.artifact_id for event in store.events()]


def test_a_module_and_its_child_processes(app):
    done = run(*of(app / "events.db"), "--", sys.executable, "-m", "app", "parent")
    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout.split() == ["parent", "plain", "child", "plain"]
    sidelight("relay", "--once", *of(app / "events.db"))
    assert sorted(artifacts(app / "events.db")) == ["child", "parent"]


def test_a_script_with_another_map_file_and_its_own_sitecustomize(app):
    (app / "site").mkdir()
    (app / "site" / "sitecustomize.py").write_text("import sys\nsys.customized = True\n")
    (app / "sidelight.toml").rename(app / "points.toml")
    done = run(
        *of(app / "events.db"),
        *("--map", "points.toml", "--", sys.executable, "app.py", "o1"),
        PYTHONPATH=os.pathsep.join([str(app / "site"), os.environ.get("PYTHONPATH", "")]),
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "o1 sitecustomized\n", "")
    assert artifacts(app / "events.db") == ["o1"]


@pytest.mark.parametrize(
    "starters",
    [
        ("ddtrace-run", "sidelight"),
        ("sidelight", "ddtrace-run"),
        ("opentelemetry-instrument", "sidelight"),
    ],
    ids=" ".join,
)
def test_beside_a_tracer_that_starts_programs_too(app, starters):
    commands = {"sidelight": [*RUN, *of(app / "events.db"), "--"]}
    command = [arg for name in starters for arg in commands.get(name, [beside(name)])]
    done = started(
        [*command, sys.executable, "-m", "app", "o1"],
        OTEL_TRACES_EXPORTER="none",
        OTEL_METRICS_EXPORTER="none",
        OTEL_LOGS_EXPORTER="none",
        DD_TRACE_ENABLED="false",
        DD_INSTRUMENTATION_TELEMETRY_ENABLED="false",
        DD_REMOTE_CONFIGURATION_ENABLED="false",
    )
    assert (done.returncode, done.stdout) == (0, "o1 plain\n"), done.stderr
    assert artifacts(app / "events.db") == ["o1"]


def test_a_map_that_does_not_fit(app):
    (app / "sidelight.toml").write_text(MAP.replace("arg.order", "arg.ordre") + MAP)
    done = run("--", sys.executable, "-m", "app", "o1")
    assert done.returncode == 1
    problem = "sidelight.toml:2: shop:send: send has no parameter ordre; did you mean order?"
    assert problem in done.stderr
    done = run(*of(app / "events.db"), "--lenient", "--", sys.executable, "-m", "app", "o1")
    assert (done.returncode, done.stdout) == (0, "o1 plain\n")
    assert f"not instrumented: {problem}" in done.stderr.replace(f"{app}/", "")
    assert artifacts(app / "events.db") == ["o1"]


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory):
    """An interpreter that cannot import sidelight."""
    directory = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", directory], check=True)
    return directory / "bin" / "python"


def test_an_interpreter_without_sidelight(app, bare_python):
    (app / "serve").write_text(f"#!{bare_python}\nimport app\n")
    (app / "serve").chmod(0o755)
    for command, subject in (
        ([bare_python, "app.py", "o1"], bare_python),
        ([app / "serve"], f"{bare_python} runs {app / 'serve'} and"),
    ):
        said = refused("--", *command)
        assert said.code == 2
        assert f"{subject} cannot import sidelight" in said.err
        assert f"install sidelight for it, or use {sys.executable}" in said.err
    script = f"import subprocess; subprocess.run([{str(bare_python)!r}, '-c', 'print(1)'])"
    done = run("--", sys.executable, "-c", script)
    assert done.stdout == "1\n"
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"sidelight: not instrumented: {bare_python} cannot import sidelight")


PYCS = "--check-hash-based-pycs default -E"


@pytest.mark.parametrize("options", ["-S", "-E", "-I", "-uS", "-X dev -I", "-Wignore -E", PYCS])
def test_interpreter_options_that_keep_the_map_out(app, options):
    said = refused("--", sys.executable, *options.split(), "app.py", "o1")
    assert said.code == 2
    assert f"python -{options[-1]} does not read the map" in said.err


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["nice", "{python}", "app.py", "o1"], ""),
        (
            ["nice", "-n", "1", "{python}", "-I", "-c", "print(1)"],
            "starts {python}: python -I does",
        ),
        (["env", "A=b", "{bare}", "-c", "1"], "starts {bare}: {bare} cannot import"),
        (["env", "-i", "A=b", "{python}", "-c", "1"], "env keeps the map from the program"),
        (["env", "-u", "PYTHONPATH", "{python}", "-c", "1"], "env keeps the map from the program"),
        (
            ["env", "-uPYTHONPATH", "{python}", "-c", "1"],
            "env … sidelight run --map FILE -- python",
        ),
        (["env", "-u", "OTHER", "{python}", "app.py", "o1"], ""),
        (["nice", "{script}"], ""),
        (["nice", "true"], "no Python is seen behind nice; the map reaches only interpreters"),
        (["sh", "-c", "{python} app.py o1"], "Better: sh … sidelight run --map FILE -- python …"),
        (["{long}"], ""),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_python_that_another_program_starts(app, bare_python, command, said):
    """The program runs in any case, because what a starter does with its arguments is not known."""
    names = {"python": sys.executable, "bare": bare_python}
    for name, head in {
        "script": f"#!{sys.executable}",
        "long": f"#!/bin/sh\n'''exec' \"{sys.executable}\" \"$0\" \"$@\"\n' '''",
    }.items():
        names[name] = app / name
        names[name].write_text(f"{head}\nimport runpy, sys\nsys.argv = ['app.py', 'o1']\n")
        with names[name].open("a") as file:
            file.write("runpy.run_path('app.py', run_name='__main__')\n")
        names[name].chmod(0o755)
    done = run(*of(app / "events.db"), "--", *(word.format(**names) for word in command))
    assert done.returncode == 0, done.stderr
    assert bool(done.stderr) == bool(said)
    assert said.format(**names) in done.stderr
    if not said:
        assert artifacts(app / "events.db") == ["o1"]


def test_options_of_the_program_are_its_own(app):
    done = run(*of(app / "events.db"), "--", sys.executable, "-u", "app.py", "-I")
    assert (done.returncode, done.stdout, done.stderr) == (0, "-I plain\n", "")
    assert artifacts(app / "events.db") == ["-I"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "name a program: sidelight run --map FILE -- python -m app"),
        (["--map", "no.toml", "--", "true"], 1, "no.toml: No such file or directory"),
        (["--", "no-such-command"], 127, "there is no command no-such-command"),
        (
            ["--", "opentelemetry-instrument", "python", "-m", "app"],
            2,
            "opentelemetry-instrument sidelight run --map FILE -- python -m app",
        ),
    ],
)
def test_refusals(app, arguments, code, message):
    said = refused(*arguments)
    assert said.code == code
    assert message in said.err
