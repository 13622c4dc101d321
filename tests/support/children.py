"""Programs that report a number for each step that they have done.

`tests.support.programs` judges programs that emit events.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import textwrap
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sidelight.host import IS_LINUX

PRELUDE = """
    import os, sys, threading, time, asyncio
    import sidelight

    def acknowledge(n):
        os.write(1, b"%d\\n" % n)
"""


@dataclass
class Child:
    """A process that emits, and reports each wrapped call that has returned."""

    process: subprocess.Popen[bytes]
    acknowledged: list[int] = field(default_factory=list)
    _rest: bytes = b""

    def read(self, seconds: float, at_least: int = 1) -> None:
        """Take in what it reports until it has reported so much, or the time is over."""
        assert self.process.stdout is not None
        until = time.monotonic() + seconds
        wanted = len(self.acknowledged) + at_least
        while time.monotonic() < until and len(self.acknowledged) < wanted:
            if select.select([self.process.stdout], [], [], 0.05)[0]:
                data = os.read(self.process.stdout.fileno(), 1 << 16)
                if not data:
                    break
                *lines, self._rest = (self._rest + data).split(b"\n")
                self.acknowledged += [int(line) for line in lines]

    def kill(self) -> None:
        """SIGKILL, and take in what it had still reported."""
        self.process.send_signal(signal.SIGKILL)
        self.end()

    def end(self, seconds: float = 10.0) -> int:
        """Wait for its end, take in the rest of what it reported, and answer its exit code."""
        assert self.process.stdout is not None
        code = self.process.wait(seconds)
        self.read(2.0, at_least=1 << 30)
        self.process.stdout.close()
        return code


def start(script: str, store: Path, **environment: str) -> Child:
    """Start a child that may `acknowledge`, configured by the environment."""
    env = {**os.environ, "SIDELIGHT_STORE": f"sqlite:///{store}", **environment}
    for name in [name for name in env if name.startswith("OTEL_") and name not in environment]:
        del env[name]
    code = textwrap.dedent(PRELUDE) + textwrap.dedent(script)
    return Child(subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=env))


def in_a_forked_child(work: Callable[[], object], seconds: int = 20) -> None:
    """Run a part of a test in a child of this process; it fails where the part raises or hangs."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(seconds)
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:  # the child must not go on with the test session
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0


def sidelight_threads() -> list[str]:
    """The names, of 15 characters, of the running threads that sidelight has started here."""
    if not IS_LINUX:
        pytest.skip("only Linux tells the names of threads")
    names = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # the thread has just ended
            names.append((task / "comm").read_text().strip())
    return sorted(name for name in names if name.startswith("sidelight"))
