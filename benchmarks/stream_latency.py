"""The stream end to end: three hosts, three consumers, and the time from each call to its row.

``python -m benchmarks.stream_latency`` starts three brokers and PostgreSQL on this machine
(`make kafka`). Each host and each consumer is a process of its own, each host has its own spool.
A row is there when its transaction is committed: PostgreSQL notes that time. The same hosts without
a stream, each with its relay, stand beside it.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import psycopg
from tests.support import kafka
from tests.support.consuming import consuming, environment
from tests.support.postgres import Postgres, binaries, new_database
from tests.support.programs import ROOT, wait_until

import sidelight
from sidelight.exceptions import SinkUnavailableError
from sidelight.stream import StreamAddress, look_at_group

HOSTS: Final = 3
CONSUMERS: Final = 3
PARTITIONS: Final = 6
SECONDS: Final = 30.0
RATE: Final = 100  # calls of one host in a second
_ARTIFACTS: Final = 50  # of one host
_WARM_UP: Final = "host_started"
_PATIENCE: Final = 60.0  # seconds
_ROWS: Final = (
    "SELECT event_id::text, type, extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1e9"
    " - occurred_at FROM sidelight.events"
)


class Arrived(NamedTuple):
    """What has become of the calls of all hosts.

    Attributes:
        ids: of the events that the hosts have emitted.
        stored: the ids of the rows.
        seconds: from each call to its row, sorted; without the first call of each host.
        hosts: the names that the store has of them.
    """

    ids: list[str]
    stored: list[str]
    seconds: list[float]
    hosts: set[str]

    @property
    def is_complete(self) -> bool:
        """Whether each event is in the store once."""
        return sorted(self.ids) == sorted(self.stored)

    def quantile(self, share: float) -> float:
        """Within how many seconds this share of the rows was there."""
        return self.seconds[min(len(self.seconds) - 1, int(share * len(self.seconds)))]


def be_a_host(name: str, seconds: float, rate: float) -> None:
    """Emit at an even pace, and print the ids; the environment names stream or store."""
    sidelight.configure(otlp=False)
    print(sidelight.emit(_WARM_UP, artifact_id=name).event_id)
    sidelight.flush(_PATIENCE)
    begun, calls = time.monotonic(), 0
    while time.monotonic() - begun < seconds:
        artifact = f"{name}-{calls % _ARTIFACTS}"
        print(sidelight.emit("reading_taken", artifact_id=artifact, number=calls).event_id)
        calls += 1
        time.sleep(max(0.0, begun + calls / rate - time.monotonic()))
    if not sidelight.flush(_PATIENCE):
        raise SystemExit("not everything was delivered")


@contextlib.contextmanager
def server_with_commit_times() -> Iterator[Postgres]:
    """A PostgreSQL that notes when each transaction is committed."""
    server = Postgres(binaries(), "-c", "fsync=off", "-c", "track_commit_timestamp=on")
    try:
        server.start()
        yield server
    finally:
        server.close()


def run_hosts(
    destination: dict[str, str], directory: Path, seconds: float, rate: float
) -> list[str]:
    """Run all hosts, each with a spool of its own; return the ids of their events.

    Raises:
        CalledProcessError: a host has failed.
    """
    hosts = []
    for number in range(HOSTS):
        name = f"host-{number}"
        of_its_own = {
            "SIDELIGHT_SPOOL": str(directory / name),
            "OTEL_RESOURCE_ATTRIBUTES": f"host.name={name},service.name=meter",
            "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
        }
        command = [sys.executable, "-m", "benchmarks.stream_latency", name, str(seconds), str(rate)]
        hosts.append(
            subprocess.Popen(
                command,
                env=environment() | destination | of_its_own,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
    ids = []
    for host in hosts:
        told, _ = host.communicate(timeout=seconds + 3 * _PATIENCE)
        if host.returncode:
            raise subprocess.CalledProcessError(host.returncode, host.args)
        ids += told.split()
    return ids


def arrived(ids: list[str], url: str) -> Arrived:
    """Wait until the store has as many rows as there are ids, and read when each came."""
    with psycopg.connect(url, autocommit=True) as connection:
        wait_until(
            lambda: (
                connection.execute("SELECT count(*) FROM sidelight.events").fetchone()
                >= (len(ids),)
            ),
            _PATIENCE,
        )
        rows = connection.execute(_ROWS).fetchall()
        hosts = connection.execute("SELECT DISTINCT host FROM sidelight.processes").fetchall()
    seconds = sorted(float(late) / 1e9 for _, type_, late in rows if type_ != _WARM_UP)
    return Arrived(ids, [key for key, _, _ in rows], seconds, {host for (host,) in hosts})


def members_of(stream: str) -> int:
    """Return how many consumers have joined; 0 while the brokers make the group ready."""
    with contextlib.suppress(SinkUnavailableError):
        return look_at_group(StreamAddress.parse(stream), {}, "sidelight").members
    return 0


def through_kafka(stream: str, url: str, directory: Path, seconds: float, rate: float) -> Arrived:
    """Send the events of all hosts through a topic, and take them by all consumers."""
    with consuming(stream, url, directory / "consumers", CONSUMERS) as consumers:
        wait_until(lambda: members_of(stream) == CONSUMERS, _PATIENCE)
        ids = run_hosts({"SIDELIGHT_STREAM": stream}, directory, seconds, rate)
        found = arrived(ids, url)
        if consumers.stop() != [0] * CONSUMERS:
            raise RuntimeError("a consumer has failed")
    return found


def main() -> None:
    """Print the figures of both ways."""
    with (
        kafka.Cluster(3) as cluster,
        server_with_commit_times() as server,
        tempfile.TemporaryDirectory() as temporary,
    ):
        directory = Path(temporary)
        stream, streamed = cluster.new_topic(partitions=PARTITIONS), new_database(server)
        _print("through Kafka", through_kafka(stream, streamed, directory / "a", SECONDS, RATE))
        direct = new_database(server)
        ids = run_hosts({"SIDELIGHT_STORE": direct}, directory / "b", SECONDS, RATE)
        _print("directly", arrived(ids, direct))


def _print(way: str, found: Arrived) -> None:
    once = "each id once" if found.is_complete else "NOT EACH ID ONCE"
    print(
        f"{way}: {len(found.ids):,} events of {len(found.hosts)} hosts, {once};"
        f" from the call to the row p50 {found.quantile(0.5) * 1e3:.0f} ms,"
        f" p99 {found.quantile(0.99) * 1e3:.0f} ms, longest {found.seconds[-1] * 1e3:.0f} ms",
        flush=True,
    )


if __name__ == "__main__":
    if arguments := sys.argv[1:]:
        be_a_host(arguments[0], float(arguments[1]), float(arguments[2]))
    else:
        main()
