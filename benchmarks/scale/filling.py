"""Fills a store through spool and relay, and watches what that costs as it grows."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from benchmarks.scale.year import Year
from sidelight.emission.waiting import Watermark
from sidelight.relay.relay import Relay
from sidelight.spool.writer import Spool
from sidelight.store.sink import StoreSink

CHUNK: Final = 100_000
"""Events that are written to the spool, then drained and timed."""


@dataclass(frozen=True, slots=True)
class Drained:
    """One chunk.

    Attributes:
        stored: events in the store after it.
        seconds: on the wall.
        cpu: seconds of the processor that this process has used.
        server_cpu: the same of the database's processes; 0 where this user may not see them.
        memory: resident bytes of this process.
    """

    stored: int
    events: int
    seconds: float
    cpu: float
    server_cpu: float
    memory: int
    load: float


class Filling:
    """A spool, and a relay that drains it into one store on request."""

    def __init__(self, url: str, directory: Path, year: Year, server_cpu: Callable[[], float]):
        self._year = year
        self._server_cpu = server_cpu
        meta = {"instance": "scale", "store": url, "sinks": ["store"]}
        self._spool = Spool(directory / "spool", meta)
        self._relay = Relay(self._spool, [StoreSink(url)], Watermark())

    def chunk(self, events: int) -> Drained:
        """Write so many events into the spool, and drain them."""
        for framed in self._year.frames(events):
            try:
                self._spool.write(framed)
            except ValueError:
                self._spool.append(framed)
                self._spool.provide()
        server, cpu, begun = self._server_cpu(), time.process_time(), time.perf_counter()
        delivered = self._relay.drain()["store"]
        seconds = time.perf_counter() - begun
        if delivered != self._year.written:
            raise RuntimeError(f"{self._year.written} written, {delivered} delivered")
        return Drained(
            stored=self._year.written,
            events=events,
            seconds=seconds,
            cpu=time.process_time() - cpu,
            server_cpu=self._server_cpu() - server,
            memory=psutil.Process().memory_info().rss,
            load=os.getloadavg()[0],
        )

    def close(self) -> None:
        """Let go of the store and of the spool."""
        self._relay.stop(0.0)
        self._relay.workers[0].sink.close()
        self._spool.close()
