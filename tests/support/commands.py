"""Run commands of `sidelight`, in this process or another, and programs that emit."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from unittest import mock

import pytest
import typer
from tests.support import warm

from sidelight import Store, emission
from sidelight.cli import app as cli
from sidelight.exceptions import SidelightError

EMITTER = """
import os, signal, sys, time
import sidelight
from sidelight import arg, emits, result

@emits("order_received", artifact_id=result, organization_id=arg.shop, size=arg.size)
def receive(order, shop=None, size=1):
    return order

@emits("order_packed", start="packing_started", failure="packing_failed", artifact_id=arg.order)
def pack(order, seconds=0.0):
    if seconds < 0:
        raise ValueError("no [bold]boxes[/bold] left")
    time.sleep(seconds)
"""

KILLED = """
sidelight.configure(relay="external")
for n in range(500):
    receive(f"order-{n}", "north")
os.kill(os.getpid(), signal.SIGKILL)
"""
"""Emits 500 events and dies before anything was delivered."""

TWO_ORDERS = """
receive("order-1", "north", size=3)
pack("order-1", 0.02)
receive("order-2")
try:
    pack("order-2", -1)
except ValueError:
    pass
assert sidelight.flush(60)
"""
"""Six events about two orders, the second of them in vain."""


def url_of(store: Path | str) -> str:
    """The URL of a store that a test names by its file, or by its URL."""
    return store if isinstance(store, str) else f"sqlite:///{store}"


def emit(body: str, store: Path | str, *, ends: int = 0, **environment: str) -> None:
    """Run code in a separate process, which emits into ``store`` and ends with this signal."""
    program = ["-c", textwrap.dedent(EMITTER) + textwrap.dedent(body)]
    variables = {**os.environ, "SIDELIGHT_STORE": url_of(store), **environment}
    if warm.can_run(environment):
        process = warm.Popen(program, variables)
    else:
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [sys.executable, *program], env=variables, stdout=pipe, stderr=pipe, text=True
        )
    with process:
        try:
            _, err = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == -ends, err


@dataclass(frozen=True)
class Answer:
    """The output of a command, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> list[dict[str, Any]]:
        """Stdout, one object per line."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def words(self) -> str:
        """Stdout in one line."""
        return " ".join(self.out.split())


_COMMANDS = typer.main.get_command(cli.app)
"""The commands, built once; typer would build them anew for each call, which takes 10 ms."""


@contextlib.contextmanager
def _handlers_kept() -> Iterator[None]:
    """Put the handlers of signals back, which a command replaces in a process of its own."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is not handler:
                signal.signal(number, handler)


def sidelight(*arguments: object, columns: int = 100) -> Answer:
    """Run a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.dict(os.environ, COLUMNS=str(columns)),
        mock.patch.object(cli, "app", _COMMANDS),
        mock.patch.object(sys, "path", [*sys.path]),
        mock.patch.dict(emission.EMITTER.losses, clear=True),  # as in a process of its own
        _handlers_kept(),
        pytest.raises(SystemExit) as ended,
    ):
        cli.main([str(argument) for argument in arguments])
    code = ended.value.code
    assert code is None or isinstance(code, int)
    return Answer(code or 0, out.getvalue(), err.getvalue())


def printed(text: str) -> list[list[str]]:
    """The commands in backticks in a text, as words behind the program's name."""
    return [shlex.split(each) for each in re.findall(r"`sidelight ([^`]*)`", text)]


def understood(words: Sequence[str]) -> dict[str, Any]:
    """What the command line reads in a command, by the options' names in code.

    Raises:
        click.UsageError: it is not understood.
    """
    rest, command = [*words], _COMMANDS
    while rest and rest[0] in getattr(command, "commands", ()):
        command = command.commands[rest.pop(0)]  # type: ignore[attr-defined]
    return command.make_context(command.name, rest).params


def wrong(check: str, *options: object) -> str:
    """The wrong findings of one check of the doctor, in a line; "" without one."""
    found = sidelight("doctor", "--json", *options).json
    told = (each for each in found if each["check"] == check and each["state"] == "wrong")
    return "; ".join(each["message"] for each in told)


def spawn(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    """Run a command in a separate process."""
    return subprocess.Popen(
        [sys.executable, "-m", "sidelight", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def end(process: subprocess.Popen[str]) -> Answer:
    """Wait for the end of a command."""
    out, err = process.communicate(timeout=60)
    return Answer(process.returncode, out, err)


def of(store: Path | str) -> tuple[str, str]:
    """The option that names a store."""
    return "--store", url_of(store)


def stored(path: Path | str) -> int:
    """The number of events in a store."""
    with contextlib.suppress(SidelightError), Store(url_of(path)) as store:
        return store.size()
    return 0


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Look every 50 ms until the condition is true, and less often the longer that takes."""
    began = looked = time.monotonic()
    while not condition():
        now = time.monotonic()
        assert now < began + seconds, "it took too long"
        time.sleep(max(0.05, now - looked, (now - began) / 20))
        looked = time.monotonic()


class Program(subprocess.Popen[str]):
    """A program that emits; ``first`` is the first line that it has printed."""

    first: str


@contextlib.contextmanager
def running(
    body: str, store: Path | str, *, before: Sequence[str] = (), **environment: str
) -> Iterator[Program]:
    """Run code that emits into ``store``, until the block ends; it has printed a line already."""
    process = Program(
        [*before, sys.executable, "-c", textwrap.dedent(EMITTER) + textwrap.dedent(body)],
        env={**os.environ, "SIDELIGHT_STORE": url_of(store), **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        process.first = process.stdout.readline().strip()
        if not process.first:
            pytest.skip(process.communicate()[1]) if before else pytest.fail(
                process.communicate()[1]
            )
        yield process
    finally:
        process.kill()
        process.communicate()


def start(
    *arguments: object, cwd: Path | str | None = None, **environment: str
) -> subprocess.Popen[str]:
    """Run a command in a separate process, which has the libraries already."""
    return warm.Popen(["-m", "sidelight", *map(str, arguments)], {**os.environ, **environment}, cwd)


def apart(*arguments: object, **options: Any) -> Answer:
    """`start` a command, and wait for its end."""
    return end(start(*arguments, **options))


@contextlib.contextmanager
def relaying(*options: object, **popen: Any) -> Iterator[subprocess.Popen[str]]:
    """Run `sidelight relay` until the block ends; the relay has begun."""
    process = spawn("relay", *options, **popen)
    try:
        assert process.stderr is not None
        while "relaying" not in (line := process.stderr.readline()):  # warnings may come first
            assert line
        yield process
    finally:
        process.kill()
        process.communicate()


class Living:
    """A process that emits on request."""

    BODY = """
        sidelight.configure(relay=os.environ["RELAY"])
        print("ready", flush=True)
        for line in sys.stdin:
            receive(f"order-{line.strip()}")
            print("done", flush=True)
        """

    def __init__(self, store: Path | str, relay: str = "external") -> None:
        self._stack = contextlib.ExitStack()
        self.process = self._stack.enter_context(running(self.BODY, store, RELAY=relay))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def emit(self, n: int) -> None:
        """Let it emit one event."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{n}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def kill(self) -> None:
        """SIGKILL."""
        self._stack.close()
