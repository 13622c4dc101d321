"""Run programs in forks of a process that has imported already what they import.

Most of the processor time of a short program is imports. Here a server imports modules once, and
forks for each program. The fork is a process of its own, in which sidelight is not configured yet;
it differs from a fresh interpreter in its loaded modules only. Programs that are about a start or
an import run in an interpreter of their own instead.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import gc
import importlib
import json
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

EMITTING = ("asyncio", "sidelight.runtime", "sidelight.relay", "sidelight.store.sink", "sqlite3")
"""What a program imports that emits into SQLite."""
COMMANDS = (
    "asyncio",
    "csv",
    "http.client",
    "jinja2",
    "msgspec",
    "opentelemetry.trace",
    "psycopg",
    "pydantic.plugin._loader",
    "pydantic.types",
    "rich.progress",
    "rich.prompt",
    "rich.rule",
    "rich.syntax",
    "rich.table",
    "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.dialects.sqlite",
    "sqlite3",
    "starlette.applications",
    "tomllib",
    "typer._adapters",
    "urllib.request",
    "uvicorn.lifespan.on",
    "uvicorn.protocols.http.auto",
    "wrapt",
    "zoneinfo",
)
"""The libraries that commands of `sidelight` import. They import sidelight itself anew."""

_MOST_FILES = 16  # that a program gets
_WIDTH = 10  # of a pid and of an exit code, each of which the server sends
_MODULE = ["-m", "sidelight"]
_INTERPRETER = ("PYTHON", "LD_")  # variables that only an interpreter's start reads

_COMMAND = """#!{python} -IS
import json, os, signal, socket, sys

if sys.argv[1:2] == ["run"]:
    os.execv("{python}", ["{python}", "-m", "sidelight", *sys.argv[1:]])
connection = socket.socket(socket.AF_UNIX)
connection.connect("{address}")
arguments = ["-m", "sidelight", *sys.argv[1:]]
asked = {{"arguments": arguments, "env": dict(os.environ), "cwd": os.getcwd()}}
asked["files"] = [0, 1, 2]
socket.send_fds(connection, [json.dumps(asked).encode()], [0, 1, 2])
connection.shutdown(socket.SHUT_WR)
pid = int(connection.recv({width}, socket.MSG_WAITALL))
for each in (signal.SIGINT, signal.SIGTERM):
    signal.signal(each, lambda number, _: os.kill(pid, number))
code = int(connection.recv({width}, socket.MSG_WAITALL))
os._exit(code if code >= 0 else 128 - code)
"""

_STREAMS = {"stdin": "strict", "stdout": "strict", "stderr": "backslashreplace"}
"""The standard streams, and how each treats what it cannot encode."""

cold = False
"""Whether programs that emit for long run in interpreters of their own."""

_to_be_closed: list[Callable[[], None]] = []


def end() -> None:
    """End the servers of this session."""
    while _to_be_closed:
        _to_be_closed.pop()()


class Popen(subprocess.Popen[Any]):
    """Runs ``-c CODE`` or ``-m MODULE …``; its signals and its end are as ever."""

    _connection: socket.socket | None = None

    def __init__(
        self,
        arguments: list[str],
        environment: Mapping[str, str],
        cwd: Path | str | None = None,
        **options: Any,
    ) -> None:
        """Start it.

        Args:
            arguments: of the interpreter.
            environment: all of its variables.
            cwd: its directory.
            options: of `subprocess.Popen`: streams other than pipes for text, and `pass_fds`.
        """
        pipe = subprocess.PIPE
        given = {"stdin": pipe, "stdout": pipe, "stderr": pipe, "text": True} | options
        super().__init__(arguments, env=environment, cwd=cwd, **given)

    def _execute_child(self, args, executable, preexec, close, pass_fds, cwd, env, *rest):
        ends = rest[3:9]  # of the pipes: the child's and ours
        try:
            self._connection = socket.socket(socket.AF_UNIX)
            self._connection.connect(address_of(COMMANDS if args[:2] == _MODULE else EMITTING))
            asked = {"arguments": args, "env": dict(env), "cwd": str(cwd or Path.cwd())}
            asked["files"] = [0, 1, 2, *pass_fds]
            files = [ends[0], ends[3], ends[5], *pass_fds]
            socket.send_fds(self._connection, [json.dumps(asked).encode()], files)
            self._connection.shutdown(socket.SHUT_WR)
            self.pid = _number_from(self._connection)
            self._child_created = True
        finally:
            self._close_pipe_fds(*ends)

    def _internal_poll(self, *_, **__):
        connection = None if self.returncode is not None else self._connection
        if connection is not None and select.select([connection], [], [], 0)[0]:
            self._wait(None)
        return self.returncode

    def _wait(self, timeout):
        if self.returncode is None:
            self._connection.settimeout(None if timeout is None else max(timeout, 0.001))
            try:
                self.returncode = _number_from(self._connection)
            except TimeoutError:
                raise subprocess.TimeoutExpired(self.args, timeout) from None
            self._connection.close()
        return self.returncode


def _number_from(connection: socket.socket) -> int:
    return int(connection.recv(_WIDTH, socket.MSG_WAITALL))


def can_run(environment: Mapping[str, str]) -> bool:
    """Whether a fork will do for a program with these variables."""
    return hasattr(os, "fork") and not any(each.startswith(_INTERPRETER) for each in environment)


def stands_for(python: str, environment: Mapping[str, str] | None) -> bool:
    """Whether a fork will do for a program that is killed, starved or frozen.

    With `--full` each of them runs in an interpreter of its own.
    """
    return not cold and python == sys.executable and can_run(environment or {})


@functools.cache
def address_of(modules: tuple[str, ...]) -> str:
    """The address of the server that has imported these modules; starts it."""
    directory = tempfile.mkdtemp(prefix="sidelight-warm-")
    address = os.path.join(directory, "socket")  # noqa: PTH118
    server = subprocess.Popen(
        [sys.executable, __file__, address, *modules],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert server.stdin is not None
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n"

    def close() -> None:
        server.communicate()
        shutil.rmtree(directory)

    _to_be_closed.append(close)
    return address


def put_command(directory: Path) -> None:
    """Put a command `sidelight` into a directory; of its own, `sidelight run` starts anew."""
    script = directory / "sidelight"
    script.write_text(
        _COMMAND.format(python=sys.executable, address=address_of(COMMANDS), width=_WIDTH)
    )
    script.chmod(0o755)


# -- in the server ---------------------------------------------------------------------------


def _received(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    text, files, *_ = socket.recv_fds(connection, 1 << 20, _MOST_FILES)
    while more := connection.recv(1 << 20):
        text += more
    return json.loads(text), files


def _next_program(address: str) -> dict[str, Any]:
    """Fork for each program that is asked for, until stdin ends; returns in the forks only."""
    waiting: dict[int, socket.socket] = {}  # for the end of a program, by its pid
    ended, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(64)
        print("ready", flush=True)
        while True:
            ready = select.select([listener, sys.stdin, ended], [], [])[0]
            if sys.stdin in ready:
                os._exit(0)
            if ended in ready:
                os.read(ended, 1 << 10)
                _tell(waiting)
            if listener in ready:
                connection = listener.accept()[0]
                asked, files = _received(connection)
                if (pid := os.fork()) == 0:
                    break
                waiting[pid] = connection
                connection.send(f"{pid:{_WIDTH}}".encode())
                for each in files:
                    os.close(each)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for each in (connection, *waiting.values()):
        each.close()
    beyond = [fcntl.fcntl(each, fcntl.F_DUPFD, max(asked["files"]) + 1) for each in files]
    for each in (ended, wake, *files):
        os.close(each)
    for each, number in zip(beyond, asked["files"], strict=True):
        os.dup2(each, number)
        os.close(each)
    return asked


def _tell(waiting: dict[int, socket.socket]) -> None:
    """Tell of each program that has ended."""
    while waiting:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            break
        with waiting.pop(pid) as connection, contextlib.suppress(OSError):
            connection.send(f"{os.waitstatus_to_exitcode(status):{_WIDTH}}".encode())


def _begin(asked: dict[str, Any]) -> str:
    """Make the process look as if it had just started; returns its source."""
    for number, (name, errors) in enumerate(_STREAMS.items()):
        line = 1 if name == "stderr" or os.isatty(number) else -1
        stream = open(number, "w" if number else "r", line, "utf-8", errors, closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    time.tzset()
    random.seed()
    if os.environ.get("PYTHONWARNINGS") == "error":
        warnings.simplefilter("error")
    how, what, *rest = asked["arguments"]
    if how == "-c":
        sys.argv, sys.path[0] = ["-c", *rest], ""
        return what
    if what != "sidelight":
        sys.argv[1:], sys.path[:1] = rest, [asked["cwd"], *_paths_in(asked["env"])]
        return f"import runpy\nrunpy.run_module({what!r}, run_name='__main__', alter_sys=True)"
    sys.argv, sys.path[0] = ["sidelight", *rest], str(Path(sys.executable).parent)
    return "from sidelight.cli import main\nmain()"


def _paths_in(environment: Mapping[str, str]) -> list[str]:
    return [each for each in environment.get("PYTHONPATH", "").split(os.pathsep) if each]


if __name__ == "__main__":
    for module in sys.argv[2:]:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()
    _code = compile(_begin(_next_program(sys.argv[1])), "<string>", "exec")
    for _each in [each for each in globals() if each not in {"__builtins__", "__name__", "_code"}]:
        del globals()[_each]
    exec(globals().pop("_code"))
