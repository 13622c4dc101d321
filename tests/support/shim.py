"""System calls that fail, and a clock that goes wrong, in a program, at a moment of choice.

::

    shim = Shim(tmp_path)                        # skips the test where there is no C compiler
    program = Program(store, environment=shim.environment)
    shim.fail("sync", errno.EIO, under=spool)    # from now on
    shim.heal("sync")

The program runs with `shim.c` preloaded, and both map one file.
"""

from __future__ import annotations

import functools
import mmap
import struct
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.support.tools import find

CALLS = ("open", "read", "write", "sync", "allocate", "map", "rename", "unlink")
_RULE = struct.Struct("<4i496s")
_RULES_AT = 64
_ERROR, _SKIP, _TIMES, _MET = range(4)


@functools.cache
def library() -> Path:
    """The compiled shim, made once for a test session."""
    compiler = find("cc")
    if compiler is None:
        pytest.skip("a fault is injected by a preloaded C library, and there is no compiler (cc)")
    made = Path(tempfile.mkdtemp(prefix="shim-")) / "shim.so"
    source = Path(__file__).with_name("shim.c")
    command = [compiler, "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", str(made)]
    ran = subprocess.run([*command, str(source), "-ldl"], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return made


class Shim:
    """The results of system calls and the clock, for programs with this environment."""

    def __init__(self, directory: Path) -> None:
        self._library = library()
        self._path = directory / "shim-control"
        size = _RULES_AT + len(CALLS) * _RULE.size
        self._path.write_bytes(bytes(size))
        with self._path.open("r+b") as file:
            self._control = mmap.mmap(file.fileno(), size)

    @property
    def environment(self) -> Mapping[str, str]:
        """For the programs."""
        return {"LD_PRELOAD": str(self._library), "SHIM_CONTROL": str(self._path)}

    def fail(self, call: str, error: int, under: Path, *, skip: int = 0, times: int = -1) -> None:
        """Let calls fail with an errno on files whose path begins with ``under``.

        Args:
            call: one of `CALLS`.
            error: the errno.
            under: a directory or a file; links in it are not followed.
            skip: so many calls pass first.
            times: so many calls fail then; -1 lets all fail until `heal`.
        """
        at = self._at(call)
        met = self.met(call)
        self._control[at : at + _RULE.size] = _RULE.pack(0, skip, times, met, str(under).encode())
        self._set(call, _ERROR, error)

    def heal(self, *calls: str) -> None:
        """Let these calls pass again; named none, all."""
        for call in calls or CALLS:
            self._set(call, _ERROR, 0)

    def met(self, call: str) -> int:
        """How many calls have failed."""
        at = self._at(call) + 4 * _MET
        return struct.unpack("<i", self._control[at : at + 4])[0]

    def set_clock(self, seconds: float) -> None:
        """Let the wall clock be so far ahead of the true one, or behind it."""
        self._control[:8] = struct.pack("<q", int(seconds * 1e9))

    def _at(self, call: str) -> int:
        return _RULES_AT + CALLS.index(call) * _RULE.size

    def _set(self, call: str, what: int, value: int) -> None:
        at = self._at(call) + 4 * what
        self._control[at : at + 4] = struct.pack("<i", value)
