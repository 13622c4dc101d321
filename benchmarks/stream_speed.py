"""The stream: from the spool to Kafka's acknowledgement, and from a topic into PostgreSQL.

``python -m benchmarks.stream_speed`` starts three brokers on this machine (`make kafka`). Kafka's
own producer sends the same messages, in structured mode, in the same run. The direct delivery into
PostgreSQL stands beside the consumer. All four are measured in turn, several times. Only the ratios
carry to another machine, and each is the median of those of the rounds.
"""

from __future__ import annotations

import contextlib
import re
import resource
import subprocess
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

import psycopg
from tests.support import kafka
from tests.support.postgres import end, new_database

import sidelight
from benchmarks.work import make_work
from sidelight import arg, emits
from sidelight.cli.collector import collecting_seldom
from sidelight.emission.emitter import EMITTER
from sidelight.emission.waiting import Watermark
from sidelight.relay.relay import Relay
from sidelight.runtime.process import RUNTIME
from sidelight.runtime.sinks import sinks_of
from sidelight.store import StoreSink
from sidelight.stream import StreamAddress, StreamConsumer

EVENTS: Final = 60_000
ROUNDS: Final = 3
COPIES: Final = 3
SAMPLE: Final = 5_000
_PER_ARTIFACT: Final = 8
RELAY: Final = "relay to Kafka"
PERF_TEST: Final = "Kafka's own producer"
CONSUMER: Final = "topic to PostgreSQL"
DIRECT: Final = "relay to PostgreSQL"


def prepare(directory: Path, events: int, **destination: str) -> None:
    """Emit with the relay elsewhere."""
    instrument = emits(
        "artifact_received",
        artifact_id=arg.artifact_id,
        organization_id=arg.organization_id,
        number=arg.number,
    )
    call = instrument(make_work())
    sidelight.configure(spool=directory, relay="external", otlp=False, **destination)  # type: ignore[arg-type]
    for number in range(events):
        artifact = number // _PER_ARTIFACT
        call(f"artifact-{artifact:06}", f"organization-{artifact % 50}", number)


def drain() -> tuple[float, float]:
    """Deliver what `prepare` left; seconds on the wall and of the processor, all threads.

    Raises:
        RuntimeError: nothing was prepared.
    """
    if RUNTIME.spool is None or RUNTIME.settings is None:
        raise RuntimeError("nothing was prepared")
    relay = Relay(RUNTIME.spool, sinks_of(RUNTIME.settings, EMITTER.count), Watermark())
    for worker in relay.workers:
        worker.open()
    with collecting_seldom():  # as `sidelight relay` does
        begun, busy = time.perf_counter(), time.process_time()
        relay.drain()
        spent = time.perf_counter() - begun, time.process_time() - busy
    relay.stop(5.0)
    return spent


def consume(topic: str, url: str) -> tuple[float, float]:
    """Store a whole topic; seconds on the wall and of the processor for all of it.

    The first batch is not measured, nor is the last one: while each of the others is stored,
    another one is read.
    """
    with contextlib.closing(StoreSink(url)) as sink:
        sink.write([], {})
        address = StreamAddress.parse(topic)
        consumer = StreamConsumer(address, {}, "benchmark", sink, lambda *_: None)
        while not consumer.progress.stored:
            consumer.step(lambda: False)
        first = consumer.progress.stored
        with collecting_seldom():  # as `sidelight consume` does
            begun, busy = time.perf_counter(), time.process_time()
            while consumer.progress.stored < EVENTS - first:
                consumer.step(lambda: False)
            spent = time.perf_counter() - begun, time.process_time() - busy
        share = EVENTS / (consumer.progress.stored - first)
        while consumer.progress.stored < EVENTS:
            consumer.step(lambda: False)
        consumer.close()
    return spent[0] * share, spent[1] * share


def kafkas_own_producer(cluster: kafka.Cluster, payloads: Path, events: int) -> tuple[float, float]:
    """Seconds on the wall and of the processor of Kafka's own producer, with the same guarantees.

    Its processor time has the start of its JVM, and compilation.
    """
    topic = cluster.new_topic(partitions=6).rpartition("/")[2]
    properties = ["acks=all", "enable.idempotence=true", "compression.type=lz4", "linger.ms=50"]
    options = ["--topic", topic, "--num-records", events, "--throughput", -1]
    options += ["--payload-file", payloads, "--producer-props"]
    options += [f"bootstrap.servers={cluster.servers}", *properties]
    busy = resource.getrusage(resource.RUSAGE_CHILDREN)
    ran = subprocess.run(
        kafka.java("org.apache.kafka.tools.ProducerPerformance", *options),
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = spent.ru_utime + spent.ru_stime - busy.ru_utime - busy.ru_stime
    speed = float(re.findall(r"([\d.]+) records/sec", ran.stdout.splitlines()[-1])[0])
    return events / speed, cpu


class Measured(NamedTuple):
    """What one round has measured: events a second, and µs of the processor for each."""

    speed: float
    cpu: float


def measured(wall: float, busy: float) -> Measured:
    """Turn seconds for all events into rates."""
    return Measured(EVENTS / wall, busy / EVENTS * 1e6)


def measure_round(cluster: kafka.Cluster, directory: Path, payloads: Path) -> dict[str, Measured]:
    """Measure the four ways once, each with events of its own.

    Raises:
        RuntimeError: messages are missing: a speed with losses is none.
    """
    topic, url = cluster.new_topic(partitions=6), new_database()
    prepare(directory / "stream", EVENTS, stream=topic)
    found = {RELAY: measured(*drain())}
    if (held := len(cluster.messages(topic))) < EVENTS:
        raise RuntimeError(f"{EVENTS} emitted, {held} in the topic")
    found[PERF_TEST] = measured(*kafkas_own_producer(cluster, payloads, EVENTS))
    found[CONSUMER] = measured(*consume(topic, url))
    prepare(directory / "store", EVENTS, store=new_database())
    found[DIRECT] = measured(*drain())
    logs = cluster.directory.glob(f"*/{topic.rpartition('/')[2]}-*/*.log")
    message = sum(each.stat().st_size for each in logs) / COPIES / EVENTS
    with psycopg.connect(url) as connection:
        size = connection.execute("SELECT pg_database_size(current_database())").fetchone()
    print(f"{message:.0f} bytes a message in the log of a broker, {size[0] / EVENTS:.0f} a row")
    return found


def main() -> None:
    """Print the figures of each round, then the medians and ratios."""
    rounds = []
    with kafka.Cluster(3) as cluster, tempfile.TemporaryDirectory() as temporary:
        sample, payloads = cluster.new_topic(), Path(temporary, "payloads")
        prepare(Path(temporary, "sample"), SAMPLE, stream=f"{sample}?mode=structured")
        drain()
        payloads.write_bytes(b"\n".join(each.value() for each in cluster.messages(sample)))
        for number in range(ROUNDS):
            rounds.append(measure_round(cluster, Path(temporary, str(number)), payloads))
            for what, of in rounds[-1].items():
                print(f"  {what}: {of.speed:,.0f} events/s, {of.cpu:.1f} µs", flush=True)
    end()
    print("medians:")
    for what in rounds[0]:
        speed, cpu = (
            median(getattr(each[what], name) for each in rounds) for name in ("speed", "cpu")
        )
        print(f"  {what}: {speed:,.0f} events/s, {cpu:.1f} µs of CPU an event")
    for upper, lower in ((RELAY, PERF_TEST), (CONSUMER, DIRECT)):
        speed = median(each[upper].speed / each[lower].speed for each in rounds)
        print(f"  {upper} / {lower}: {speed:.2f}")


if __name__ == "__main__":
    main()
