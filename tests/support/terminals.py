"""Run commands of `sidelight` in a pseudo-terminal of some width, or in a pipe."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Sequence

_SEPARATOR = "\x00"
_RUN = """
import json, sys
from sidelight.cli import main
for arguments in json.loads(sys.argv[1]):
    try:
        main(arguments)
    except SystemExit as ended:
        print(f"exit code {ended.code or 0}", "\\0", sep="", end="", flush=True)
"""
ESCAPE = re.compile(r"\x1b\[([0-9;?]*)([a-zA-Z])")


def _program(commands: Sequence[Sequence[str]]) -> list[str]:
    return [sys.executable, "-c", _RUN, json.dumps([[*map(str, each)] for each in commands])]


def _environment(changed: dict[str, str]) -> dict[str, str]:
    forced = {"COLUMNS", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "PY_COLORS", "COLORTERM"}
    kept = {name: value for name, value in os.environ.items() if name not in forced}
    return {**kept, "TERM": "xterm-256color", **changed}


def in_terminal(commands: Sequence[Sequence[str]], columns: int, **environment: str) -> list[str]:
    """What each command prints on a terminal of so many columns, stdout and stderr together.

    One process runs all commands, one after the other.
    """
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    process = subprocess.Popen(
        _program(commands),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=_environment(environment),
        close_fds=True,
    )
    os.close(terminal)
    said = b""
    try:
        while data := os.read(controller, 1 << 16):
            said += data
    except OSError:  # the terminal is closed: the process has ended
        pass
    finally:
        os.close(controller)
        process.wait(60)
    return said.decode().replace("\r\n", "\n").split(_SEPARATOR)[:-1]


def in_pipe(commands: Sequence[Sequence[str]], **environment: str) -> list[str]:
    """What each command prints into a pipe, stdout and stderr together."""
    ended = subprocess.run(
        _program(commands),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=_environment(environment),
        timeout=120,
        check=True,
    )
    return ended.stdout.split(_SEPARATOR)[:-1]


def plain(text: str) -> str:
    """The text without escape sequences."""
    return ESCAPE.sub("", text)
