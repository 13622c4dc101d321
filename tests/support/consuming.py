"""Consumers of a topic, as processes of their own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tests.support.commands import sidelight
from tests.support.programs import ROOT, wait_until

from sidelight.spool import Record
from sidelight.stream import Event, read_message


def command(stream: str, store: str, spool: Path, *options: str) -> list[str]:
    """The command line of a consumer."""
    named = ["--store", store, "--spool", str(spool)]
    return [sys.executable, "-m", "sidelight", "consume", stream, *named, *options]


def environment() -> dict[str, str]:
    """The environment of a command, without the variables of the person who runs the tests."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "SIDELIGHT_"))}
    shortest = "6000"  # until the group gives the partitions of a killed consumer to another one
    return {
        **kept,
        "PYTHONPATH": str(ROOT / "src"),
        "SIDELIGHT_KAFKA_SESSION_TIMEOUT_MS": shortest,
    }


class Consumers:
    """Some consumers of one group."""

    def __init__(self, stream: str, store: str, spool: Path, number: int) -> None:
        self._arguments = stream, store, spool
        self.processes = [self._start() for _ in range(number)]

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command(*self._arguments),
            env=environment(),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def kill(self, which: int) -> None:
        """SIGKILL to one, and start another one in its place."""
        self.processes[which].kill()
        self.processes[which].wait()
        self.processes[which] = self._start()

    def stop(self) -> list[int]:
        """SIGTERM to all; return their exit codes."""
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        return [process.wait(60) for process in self.processes]


@contextlib.contextmanager
def consuming(stream: str, store: str, spool: Path, number: int = 2) -> Iterator[Consumers]:
    """Yield running consumers, and kill those that have not ended."""
    consumers = Consumers(stream, store, spool, number)
    try:
        yield consumers
    finally:
        for process in consumers.processes:
            process.kill()
            process.wait()


def consume_once(stream: str, store: str, spool: Path, *options: str) -> str:
    """Consume what the topic holds, in this process; return what the command told."""
    ran = sidelight(*command(stream, store, spool, "--once", *options)[3:])
    assert ran.code == 0, ran.err
    return ran.out + ran.err


def events_in(messages: Iterable[Any]) -> list[Record]:
    """The records of the events among messages, without what is told of processes."""
    read = [read_message(each.value(), each.headers() or ()) for each in messages]
    return [each.record for each in read if isinstance(each, Event)]


def deliver_to_stream(stream: str, spool: Path) -> None:
    """Run ``sidelight relay --once`` until the spool is empty."""
    arguments = ["relay", "--once", "--stream", stream, "--spool", str(spool)]
    wait_until(lambda: sidelight(*arguments).code == 0)
