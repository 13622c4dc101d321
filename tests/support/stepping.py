"""Interrupt a call at one of the places where CPython lets an exception from outside arrive.

Run as a program, it forks a child for every n-th place of a first call, and reports the places
after which a child did not recover::

    python -m tests.support.stepping <kind of first call> <first place> <n>
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dis import opmap
from pathlib import Path
from types import FrameType
from typing import Any

import sidelight.relay
import sidelight.store
from sidelight import arg, emits

SOURCE = str(Path(sidelight.__file__).parent)
#: Behind these instructions the interpreter looks for signals and for exceptions of other threads.
LOOKS = {code for name, code in opmap.items() if name.startswith(("CALL", "RESUME", "JUMP_BACK"))}


class Interrupt(Exception):
    """Stands for what a job queue aims at a thread."""


class TimeLimit(Exception):
    """The error of a job's time limit, raised by a signal handler."""


def interrupt() -> None:
    """Raise what a job queue aims at a thread."""
    raise Interrupt


class Steps:
    """Traces a call, and interrupts it at one place of the code of some files.

    Attributes:
        place: where it was interrupted; None where the call has fewer places.
    """

    def __init__(
        self,
        step: int,
        sources: tuple[str, ...] = (SOURCE, "<sidelight"),
        interrupt: Callable[[], None] = interrupt,
    ) -> None:
        self.place: str | None = None
        self._left = step
        self._sources = sources
        self._interrupt = interrupt
        self._before: dict[FrameType, int] = {}
        self._kept = self._trace  # CPython 3.11 keeps no reference to the method that it calls

    def run(self, call: Callable[[], object]) -> bool:
        """Run the call; return whether the exception came out of it."""
        sys.settrace(self._kept)
        try:
            call()
        except Interrupt:
            return True
        finally:
            sys.settrace(None)
        return False

    def _trace(self, frame: FrameType, event: str, _: object) -> Any:
        file = frame.f_code.co_filename
        if not file.startswith(self._sources) or self.place is not None:
            return None
        frame.f_trace_opcodes = True
        if event == "exception":
            self._before.pop(frame, None)  # the interpreter does not look before the handler
        elif event == "opcode":
            code, at = frame.f_code.co_code, frame.f_lasti
            if self._before.get(frame) in LOOKS:
                self._left -= 1
                if self._left < 0:
                    self.place = f"{file.removeprefix(SOURCE)}:{frame.f_lineno}"
                    sys.settrace(None)
                    self._interrupt()
            self._before[frame] = code[at]
        return self._kept


@emits("decorated", artifact_id=arg.n)
def decorated(n: int) -> int:
    """A scheduled point."""
    return n


@emits("awaited", artifact_id=arg.n, mode="awaited")
def awaited(n: int) -> int:
    """An awaited point."""
    return n


def emitted(n: int) -> str:
    """A direct emission."""
    return str(sidelight.emit("emitted", artifact_id=n))


def configured(n: int) -> int:
    """An explicit configuration, and a point."""
    sidelight.configure()
    return decorated(n)


FIRST_CALLS: dict[str, Callable[[int], object]] = {
    "decorated": decorated,
    "awaited": awaited,
    "emitted": emitted,
    "configured": configured,
}


def recovered(kind: str, step: int) -> tuple[str | None, str]:
    """Interrupt a first call at a step; return the place, and what was wrong afterwards."""
    steps, first = Steps(step), FIRST_CALLS[kind]
    arrived = steps.run(lambda: first(2 * step))
    if steps.place is not None and not arrived:
        return steps.place, "the exception did not arrive"
    next_call = decorated if kind == "configured" else first
    next_call(2 * step + 1)
    return steps.place, "" if sidelight.flush(20) else "flush() is False"


def main() -> None:
    """Try places until a call has no more; print what was wrong, and how many places there are."""
    kind, step, every = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    _ = sidelight.relay.Relay, sidelight.store.StoreSink  # a child need not import them again
    wrong = []
    while True:
        read, write = os.pipe()
        if not (child := os.fork()):
            os.write(write, json.dumps(recovered(kind, step)).encode())
            os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as told:
            place, problem = json.loads(told.read() or '["?", "the child died"]')
        os.waitpid(child, 0)
        if problem:
            wrong.append(f"{place}: {problem}")
        if place is None:
            break
        step += every
    print(json.dumps({"wrong": wrong, "steps": step}))


if __name__ == "__main__":
    main()
