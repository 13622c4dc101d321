"""A real Kafka, started by the tests: Apache Kafka 4.1.0 in KRaft mode, on loopback.

::

    from tests.support.kafka import Cluster, broker

    def test_something():
        address = broker().new_topic(partitions=3)      # kafka://127.0.0.1:…/topic

    with Cluster(3) as cluster:                         # of one's own, to be broken
        cluster.brokers[0].kill()

`broker` is one broker for all tests of a session that need no cluster. ``SIDELIGHT_TEST_KAFKA``
(``host:port,host:port``) names another one, without authentication. The jars lie in
``${XDG_CACHE_HOME:-~/.cache}/sidelight/kafka-<version>``. ``make kafka`` puts them there, and an
archive of the classes that a broker loads, which halves the time that a broker takes to start::

    python -m tests.support.kafka

A broker ends with the process that started it, because the kernel sends it a signal then.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import functools
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Self

from filelock import FileLock
from tests.support.collector_build import cache_directory
from tests.support.ports import LOOPBACK, free_ports
from tests.support.proxy import Proxy
from tests.support.tools import BARE, find, remove

HOW_TO_GET_ONE: Final = (
    "no Kafka here: run `make kafka` (needs Maven and a JRE of Java 17), or name a cluster with"
    " SIDELIGHT_TEST_KAFKA=host:port"
)
_MANIFEST: Final = Path(__file__).with_name("kafka.xml")
_GOAL: Final = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
_ARCHIVE: Final = "classes.jsa"
_HEAP: Final = "384m"
_PREFIX: Final = "sidelight-kafka-"
USER: Final = "shop"
PASSWORD: Final = "secret-of-the-shop"
#: Ends with its parent, and turns into the command.
_BECOME: Final = """
import ctypes, os, signal, sys
os.setsid()
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() == int(sys.argv[1]):
    os.execvp(sys.argv[2], sys.argv[2:])
"""
_cache = cache_directory()  # at import: a test that moves HOME still finds the jars
_to_be_closed: list[Cluster] = []


class KafkaError(Exception):
    """Kafka could not be fetched, or did not start."""


# -- where it is ---------------------------------------------------------------------------------


def jars() -> Path | None:
    """The directory of the jars; None where there is none, or no Java to run them."""
    if BARE or not find("java"):
        return None
    home = _home()
    complete = home / _MANIFEST.name
    same = complete.exists() and complete.read_bytes() == _MANIFEST.read_bytes()
    return home / "jars" if same else None


def fetch() -> Path:
    """The jars, fetched by Maven unless they are there; one process at a time fetches."""
    if found := jars():
        return found
    if not find("mvn") or not find("java"):
        raise KafkaError("`mvn` and `java` are not both on the PATH: install Maven and Java 17")
    home = _home()
    home.mkdir(parents=True, exist_ok=True)
    with FileLock(home / "fetch.lock"):
        if found := jars():
            return found
        shutil.rmtree(home / "jars", ignore_errors=True)
        command = ["mvn", "-q", "-B", "-f", _MANIFEST, _GOAL, "-DincludeScope=runtime"]
        command.append(f"-DoutputDirectory={home / 'jars'}")
        if subprocess.run(list(map(str, command)), stdout=2, check=False).returncode:
            raise KafkaError("Maven could not fetch Kafka; it says why above")
        shutil.copyfile(_MANIFEST, home / _MANIFEST.name)
    return home / "jars"


def archive_classes() -> None:
    """Let one broker write the archive of classes, unless it is there."""
    archive = _home() / _ARCHIVE
    if archive.exists():
        return
    new = archive.with_suffix(f".{os.getpid()}")
    with contextlib.closing(Cluster(1)) as cluster:
        cluster.brokers[0].launch(f"-XX:ArchiveClassesAtExit={new}")
        cluster.await_all()
        cluster.brokers[0].stop()
    new.replace(archive)


def _home() -> Path:
    version = re.search(r"<kafka.version>(.+)</kafka.version>", _MANIFEST.read_text("utf-8"))
    assert version is not None
    return _cache / f"kafka-{version[1]}"


def require_kafka() -> Path:
    """The directory of the jars; without one the calling test is skipped."""
    import pytest  # noqa: PLC0415 - `python -m tests.support.kafka` needs none

    found = jars()
    if found is None:
        pytest.skip(HOW_TO_GET_ONE)
    pytest.importorskip("confluent_kafka", reason="pip install 'sidelight[kafka]'")
    return found


@functools.cache
def _own_broker() -> Cluster:
    cluster = Cluster(1)
    cluster.start()
    _to_be_closed.append(cluster)
    return cluster


def broker() -> Topics:
    """One broker, for tests that break nothing; skips the test that asks where there is none."""
    if named := os.environ.get("SIDELIGHT_TEST_KAFKA"):
        return Topics(named)
    return own_broker()


def own_broker() -> Cluster:
    """One broker of this session, which can be reached through a proxy."""
    require_kafka()
    return _own_broker()


def end() -> None:
    """Close what this session has started."""
    while _to_be_closed:
        _to_be_closed.pop().close()


def java(main: str, *arguments: object, flags: tuple[str, ...] = ()) -> list[str]:
    """The command that runs one of Kafka's own programs, such as its console consumer."""
    log = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
    path = require_kafka()
    return ["java", "-XX:+UseSerialGC", *flags, log, "-cp", f"{path}/*", main, *map(str, arguments)]


# -- brokers -------------------------------------------------------------------------------------


class Topics:
    """The part of a cluster that tests use without breaking it."""

    def __init__(self, servers: str) -> None:
        self.servers = servers

    def client(self, **properties: object) -> dict[str, object]:
        """Properties of a client of librdkafka."""
        return {"bootstrap.servers": self.servers, "log_level": 0, **properties}

    def admin(self) -> Any:
        """An administrator's client."""
        from confluent_kafka.admin import AdminClient  # noqa: PLC0415

        return AdminClient(self.client())

    def new_topic(self, partitions: int = 1, *, copies: int = -1, **config: str) -> str:
        """The address of a new topic, in the form of ``configure(stream=…)``."""
        from confluent_kafka.admin import NewTopic  # noqa: PLC0415

        name = f"sidelight.test.{secrets.token_hex(6)}"
        settings = {key.replace("_", "."): value for key, value in config.items()}
        made = NewTopic(name, partitions, copies, config=settings)
        admin = self.admin()  # kept, because its end would end the request
        admin.create_topics([made], operation_timeout=20.0)[name].result(30)
        return f"kafka://{self.servers}/{name}"

    def messages(self, address: str, timeout: float = 20.0) -> list[Any]:
        """All messages that a topic holds now, partition by partition."""
        from confluent_kafka import Consumer, TopicPartition  # noqa: PLC0415

        topic = address.rpartition("/")[2]
        reader = Consumer(self.client(**{"group.id": "reader", "enable.auto.commit": False}))
        with contextlib.closing(reader):
            found = []
            for partition in sorted(reader.list_topics(topic, 20).topics[topic].partitions):
                place = TopicPartition(topic, partition)
                first, last = reader.get_watermark_offsets(place, 20)
                reader.assign([TopicPartition(topic, partition, first)])
                until = time.monotonic() + timeout
                while first < last:
                    message = reader.poll(0.5)
                    if message is not None and not message.error():
                        found.append(message)
                        first = message.offset() + 1
                    assert time.monotonic() < until, f"{topic} stops at {first} of {last}"
            return found


class Cluster(Topics):
    """Brokers on loopback, each of which is a controller as well."""

    def __init__(self, brokers: int = 1, **properties: str) -> None:
        """Prepare it.

        Args:
            brokers: how many.
            properties: of the brokers, with ``_`` for ``.``.
        """
        sweep()
        self.directory = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self._owner = (self.directory / "owner").open("w")
        fcntl.flock(self._owner, fcntl.LOCK_EX)  # until this process ends, however it ends
        ports = [free_ports(5) for _ in range(brokers)]
        voters = ",".join(f"{n}@{LOOPBACK}:{each[1]}" for n, each in enumerate(ports, 1))
        given = {key.replace("_", "."): value for key, value in properties.items()}
        shared = _shared(brokers, voters) | given
        self.brokers = [Broker(self.directory, n, each, shared) for n, each in enumerate(ports, 1)]
        super().__init__(",".join(f"{LOOPBACK}:{each.port}" for each in self.brokers))

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, timeout: float = 90.0) -> None:
        """Start all brokers, and wait until they answer."""
        for each in self.brokers:
            each.launch()
        self.await_all(timeout)

    def await_all(self, timeout: float = 90.0) -> None:
        """Wait until all brokers answer."""
        until = time.monotonic() + timeout
        admin = self.admin()
        while not self._is_complete(admin):
            for each in self.brokers:
                if not each.is_alive() or time.monotonic() > until:
                    raise KafkaError(f"broker {each.number} does not start:\n{each.told()}")
            time.sleep(0.05)

    def _is_complete(self, admin: Any) -> bool:
        from confluent_kafka import KafkaException  # noqa: PLC0415

        with contextlib.suppress(KafkaException):
            return len(admin.list_topics(timeout=1.0).brokers) == len(self.brokers)
        return False

    @contextlib.contextmanager
    def proxies(self) -> Iterator[tuple[str, list[Proxy]]]:
        """The servers' addresses through a proxy for each, and the proxies."""
        with contextlib.ExitStack() as stack:
            made = [Proxy((LOOPBACK, b.proxied_port), port=b.proxy_port) for b in self.brokers]
            for proxy in made:
                stack.enter_context(proxy)
            yield ",".join(f"{LOOPBACK}:{each.proxy_port}" for each in self.brokers), made

    def close(self) -> None:
        """End it and remove what it had."""
        for each in self.brokers:
            each.kill()
        remove(self.directory)
        self._owner.close()


def sweep() -> None:
    """Remove what sessions that were killed had to leave; their brokers have ended with them."""
    for directory in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError), (directory / "owner").open() as owner:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(directory, ignore_errors=True)


class Broker:
    """One broker; it can be killed, frozen and started again with the data that it has."""

    def __init__(
        self, directory: Path, number: int, ports: Sequence[int], shared: dict[str, str]
    ) -> None:
        self.number = number
        self.port, controller, self.proxied_port, self.proxy_port, self.login_port = ports
        self._log = directory / f"{number}.log"
        self._process: subprocess.Popen[bytes] | None = None
        data = directory / str(number)
        data.mkdir()
        settings = {
            **shared,
            "node.id": str(number),
            "log.dirs": str(data),
            "listeners": (
                f"PLAINTEXT://{LOOPBACK}:{self.port},CONTROLLER://{LOOPBACK}:{controller},"
                f"PROXIED://{LOOPBACK}:{self.proxied_port},LOGIN://{LOOPBACK}:{self.login_port}"
            ),
            # A client that comes through the proxy is told to come through the proxy.
            "advertised.listeners": (
                f"PLAINTEXT://{LOOPBACK}:{self.port},PROXIED://{LOOPBACK}:{self.proxy_port},"
                f"LOGIN://{LOOPBACK}:{self.login_port}"
            ),
        }
        # What `kafka-storage format` writes, without the two seconds of its own JVM.
        identity = {
            "version": "1",
            "cluster.id": _uuid("sidelight-tests"),
            "node.id": str(number),
            "directory.id": _uuid(f"directory-{number}"),
        }
        _write_properties(data / "meta.properties", identity)
        self._properties = directory / f"{number}.properties"
        _write_properties(self._properties, settings)

    def launch(self, *flags: str) -> None:
        """Start the process; whether it answers is another question."""
        if not flags and (archive := _home() / _ARCHIVE).exists():
            flags = (f"-XX:SharedArchiveFile={archive}",)
        flags += (f"-Xmx{_HEAP}", "-XX:TieredStopAtLevel=1")
        command = java("kafka.Kafka", self._properties, flags=flags)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _BECOME, str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def is_alive(self) -> bool:
        """Whether it runs, or is frozen."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.wait(20)

    def stop(self) -> None:
        """End it in order."""
        self._signal(signal.SIGTERM)
        assert self._process is not None
        self._process.wait(60)

    def pause(self) -> None:
        """Freeze it: its connections stay open, and it answers nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def told(self) -> str:
        """The end of its log."""
        return self._log.read_text("utf-8", "replace")[-3000:] if self._log.exists() else ""

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)


def _shared(brokers: int, voters: str) -> dict[str, str]:
    copies, in_sync = str(brokers), str(min(brokers, 2))
    return {
        "process.roles": "broker,controller",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": (
            "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT,LOGIN:SASL_PLAINTEXT"
        ),
        # On the listener LOGIN there is one user, who may do nothing until a test allows it.
        "listener.name.login.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.login.plain.sasl.jaas.config": (
            "org.apache.kafka.common.security.plain.PlainLoginModule required"
            f' user_{USER}="{PASSWORD}";'
        ),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        "controller.quorum.voters": voters,
        "auto.create.topics.enable": "false",
        "default.replication.factor": copies,
        "min.insync.replicas": in_sync,
        "offsets.topic.replication.factor": copies,
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": copies,
        "transaction.state.log.min.isr": in_sync,
        "group.initial.rebalance.delay.ms": "0",
        "broker.session.timeout.ms": "3000" if brokers > 1 else "18000",
        "broker.heartbeat.interval.ms": "500" if brokers > 1 else "3000",
        "metadata.max.idle.interval.ms": "500" if brokers > 1 else "0",  # writes without any work
        "replica.lag.time.max.ms": "5000",
        "num.network.threads": "2",
        "num.io.threads": "2",
        "log.cleaner.enable": "false",
    }


def _uuid(name: str) -> str:
    return base64.urlsafe_b64encode(name.encode().ljust(16, b"0")).decode().rstrip("=")


def _write_properties(path: Path, properties: dict[str, str]) -> None:
    path.write_text("".join(f"{key}={value}\n" for key, value in properties.items()), "utf-8")


if __name__ == "__main__":
    try:
        print(fetch())
        archive_classes()
    except KafkaError as error:
        raise SystemExit(f"kafka: {error}") from None
