"""The oracle of the fault tests: what was acknowledged is in the store, once, and counted once."""

from __future__ import annotations

import os
import select
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass, field
from pathlib import Path

from sidelight.directory import segments_in
from sidelight.receipt import Progress
from sidelight.relay import Relay
from sidelight.runtime import sinks_of
from sidelight.settings import settle
from sidelight.spool import Spool

PRELUDE = """
    import os, sys, threading, time, asyncio
    import sidelight
    from sidelight import arg, emits

    def acknowledge(n):
        os.write(1, b"%d\\n" % n)

    @emits("scheduled_sync", artifact_id=arg.n, organization_id="org", n=arg.n)
    def scheduled(n):
        return n

    @emits("awaited_sync", mode="awaited", artifact_id=arg.n, n=arg.n)
    def awaited(n):
        return n

    @emits("scheduled_async", artifact_id=arg.n, n=arg.n)
    async def scheduled_async(n):
        return n

    @emits("awaited_async", mode="awaited", artifact_id=arg.n, n=arg.n)
    async def awaited_async(n):
        return n
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
    """Start a child with the prelude's functions, configured by the environment."""
    env = {**os.environ, "SIDELIGHT_STORE": f"sqlite:///{store}", **environment}
    for name in [name for name in env if name.startswith("OTEL_") and name not in environment]:
        del env[name]
    code = textwrap.dedent(PRELUDE) + textwrap.dedent(script)
    return Child(subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=env))


def drain(store: Path, attempts: int = 3) -> None:
    """What `sidelight relay --once` does."""
    settings = settle(f"sqlite:///{store}", otlp=False)
    spool = Spool(settings.spool, {})
    relay = Relay(spool, sinks_of(settings), Progress())
    try:
        relay.drain(attempts)
    finally:
        for worker in relay.workers:
            worker.sink.close()
        spool.close()


def check(store: Path, acknowledged: list[int]) -> int:
    """Nothing lost, nothing twice, counters equal to the rows, nothing left; answers the rows."""
    connection = sqlite3.connect(store)
    try:
        query = "SELECT json_extract(attributes, '$.n'), event_id FROM events"
        stored = [(n, key) for n, key in connection.execute(query) if n is not None]
        lost = set(acknowledged) - {n for n, _ in stored}
        assert not lost, f"{len(lost)} of {len(acknowledged)} lost: {sorted(lost)[:10]}"
        assert len({n for n, _ in stored}) == len(stored), "an event is there twice"
        counted = dict(
            connection.execute("SELECT type, sum(count) FROM event_counts GROUP BY type")
        )
        rows = dict(connection.execute("SELECT type, count(*) FROM events GROUP BY type"))
        assert counted == rows
        (artifacts,) = connection.execute(
            "SELECT coalesce(sum(events), 0) FROM artifacts"
        ).fetchone()
        (about,) = connection.execute(
            "SELECT count(*) FROM events WHERE artifact_id IS NOT NULL"
        ).fetchone()
        assert artifacts == about
    finally:
        connection.close()
    assert not list(segments_in(settle(f"sqlite:///{store}").spool))
    return len(stored)
