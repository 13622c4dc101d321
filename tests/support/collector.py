"""The real OpenTelemetry Collector, started by a test and read back by it.

::

    from tests.support.collector import Collector, require_collector

    @pytest.fixture
    def collector():
        require_collector()                     # skips, and says how to get one
        with Collector() as running:
            yield running

    def test_something(collector):
        ...                                     # send to collector.http_endpoint or .grpc_endpoint
        (span,) = collector.spans()             # waits for at least one; records of otlp_json

`collector_build` finds or builds the binary::

    python -m tests.support.collector           # find or build it (needs Go), print where it is
    make collector                              # the same
    python -m pytest tests/tools

Acknowledged records are in the Collector's file at most 20 ms later: one that is killed may
lose that much, one that is stopped loses nothing. To count exactly, ``stop()`` first, then read
with ``at_least=0``.
"""

import contextlib
import http.client
import json
import os
import shutil
import signal
import ssl
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil
from tests.support import otlp_json
from tests.support.collector_build import HOW_TO_GET_ONE, collector_binary, main
from tests.support.otlp_json import LogRecord, MetricRecord, Reader, Record, SpanRecord
from tests.support.ports import LOOPBACK, free_ports

__all__ = [
    "Collector",
    "CollectorError",
    "LogRecord",
    "MetricRecord",
    "ServerTls",
    "SpanRecord",
    "collector_binary",
    "require_collector",
]

_POLL_SECONDS = 0.01
_FLUSH_INTERVAL = "20ms"
_ATTEMPTS_AT_PORTS = 5
# Holds the reading end of a pipe; when the tests' process ends in any way, the pipe closes.
_WATCHDOG = 'read -r _; kill -9 "-$1"'


class CollectorError(Exception):
    """The Collector did not start, or did not receive what was expected."""


@dataclass(frozen=True, slots=True)
class ServerTls:
    """The certificate of the receivers, and the authority that clients check it with."""

    certificate: Path
    key: Path
    authority: Path


def require_collector() -> Path:
    """The binary of the Collector; without one the calling test is skipped."""
    binary = collector_binary()
    if binary is None:
        import pytest  # noqa: PLC0415 - `python -m tests.support.collector` needs none

        pytest.skip(HOW_TO_GET_ONE)
    return binary


class Collector:
    """A Collector on loopback with OTLP over gRPC and HTTP, which writes all it gets to files.

    It can be started again after ``stop`` or ``kill``, on the same ports; records of earlier runs
    stay. Nothing is left behind: not on an error, and not when the tests' process is killed.
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        tls: ServerTls | None = None,
        binary: Path | None = None,
    ) -> None:
        """Prepare one.

        Args:
            directory: Where its files go; by default one of its own, removed at the end.
            tls: Makes both receivers speak TLS, and only TLS.
            binary: The Collector to run; by default the one that is found.
        """
        self._binary = binary
        self._tls = tls
        self._given_directory = directory
        self._directory: Path | None = None
        self._ports: tuple[int, int] | None = None
        self._runs = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._spans = Reader(otlp_json.spans)
        self._logs = Reader(otlp_json.logs)
        self._metrics = Reader(otlp_json.metrics)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def grpc_address(self) -> tuple[str, int]:
        """Host and port of OTLP over gRPC, for example to put a proxy in front."""
        return LOOPBACK, self._bound[0]

    @property
    def http_address(self) -> tuple[str, int]:
        """Host and port of OTLP over HTTP, for example to put a proxy in front."""
        return LOOPBACK, self._bound[1]

    @property
    def grpc_endpoint(self) -> str:
        """The value of OTEL_EXPORTER_OTLP_ENDPOINT for the protocol grpc."""
        return f"{self._scheme}://{LOOPBACK}:{self._bound[0]}"

    @property
    def http_endpoint(self) -> str:
        """The value of OTEL_EXPORTER_OTLP_ENDPOINT for http/protobuf, without ``/v1/traces``."""
        return f"{self._scheme}://{LOOPBACK}:{self._bound[1]}"

    def endpoint(self, protocol: str) -> str:
        """The value of OTEL_EXPORTER_OTLP_ENDPOINT for ``grpc`` or ``http/protobuf``."""
        return self.grpc_endpoint if protocol == "grpc" else self.http_endpoint

    @property
    def pid(self) -> int | None:
        """The process, while it lives."""
        return self._process.pid if self._process and self._process.poll() is None else None

    @property
    def output(self) -> str:
        """The log of the Collector's present or last run."""
        log = self._file("collector.log")
        return log.read_text("utf-8", "replace") if log.exists() else ""

    def spans(self, timeout: float = 10.0, *, at_least: int = 1) -> list[SpanRecord]:
        """All spans received so far, as soon as there are enough of them."""
        return self._wait_for(self._spans, "spans", timeout, at_least)

    def logs(self, timeout: float = 10.0, *, at_least: int = 1) -> list[LogRecord]:
        """All log records received so far, as soon as there are enough of them."""
        return self._wait_for(self._logs, "log records", timeout, at_least)

    def metrics(self, timeout: float = 10.0, *, at_least: int = 1) -> list[MetricRecord]:
        """All data points received so far, as soon as there are enough of them."""
        return self._wait_for(self._metrics, "data points", timeout, at_least)

    def start(self, timeout: float = 30.0) -> None:
        """Start it and wait until it answers; a later start takes the ports of the first."""
        if self.pid:
            raise CollectorError("it runs already")
        self.kill()  # what one that ended by itself has left
        binary = self._binary or collector_binary()
        if binary is None:
            raise CollectorError(HOW_TO_GET_ONE)
        if self._directory is None:
            directory = self._given_directory or Path(tempfile.mkdtemp(prefix="collector-"))
            directory.mkdir(parents=True, exist_ok=True)
            self._directory = directory.resolve()
        keep_ports = self._ports is not None
        for _ in range(1 if keep_ports else _ATTEMPTS_AT_PORTS):
            if not keep_ports:
                grpc, http = free_ports(2)
                self._ports = grpc, http
            if self._launch(binary, timeout):
                return
            if "address already in use" not in self.output:
                break
        if not keep_ports:
            self._ports = None
        raise CollectorError(f"the Collector did not start:\n{self._last_words()}")

    def stop(self, timeout: float = 10.0) -> None:
        """End it in good order: what it has acknowledged is in its files afterwards."""
        if not self._process:
            return
        self._signal(signal.SIGCONT)
        self._signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)
        self.kill()

    def kill(self) -> None:
        """Kill it (SIGKILL)."""
        if not self._process:
            return
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._process = None
        if self._watchdog and self._watchdog.stdin:
            self._watchdog.kill()
            self._watchdog.stdin.close()
            self._watchdog.wait()
        self._watchdog = None

    def restart(self, timeout: float = 30.0) -> None:
        """Stop it, where it runs, and start it on the same ports."""
        self.stop()
        self.start(timeout)

    def pause(self) -> None:
        """Freeze it: its ports still accept connections, and it does not answer."""
        pid = self.pid
        if not pid:
            raise CollectorError("it does not run")
        self._signal(signal.SIGSTOP)
        os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Let a paused one go on."""
        if not self.pid:
            raise CollectorError("it does not run")
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """Stop it and remove its files; what it received can still be read."""
        try:
            self.stop()
        finally:
            self.kill()
            for reader in (self._spans, self._logs, self._metrics):
                reader.read()
                reader.forget_files()
            if self._directory and not self._given_directory:
                shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    @property
    def _bound(self) -> tuple[int, int]:
        if self._ports is None:
            raise CollectorError("it has no ports before its first start")
        return self._ports

    @property
    def _scheme(self) -> str:
        return "https" if self._tls else "http"

    def _file(self, name: str) -> Path:
        return (self._directory or Path()) / f"{self._runs}-{name}"

    def _launch(self, binary: Path, timeout: float) -> bool:
        """One run, with files of its own: a killed run may leave half a line at the end of its."""
        self._runs += 1
        for reader, name in (
            (self._spans, "traces.jsonl"),
            (self._logs, "logs.jsonl"),
            (self._metrics, "metrics.jsonl"),
        ):
            reader.add_file(self._file(name))
        config = self._file("config.json")
        config.write_text(json.dumps(self._config(), indent=1), "utf-8")
        environment = {k: v for k, v in os.environ.items() if not k.startswith("OTEL_")}
        with self._file("collector.log").open("wb") as log:
            self._process = subprocess.Popen(
                [binary.resolve(), "--config", f"file:{config}"],
                cwd=self._directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._watchdog = subprocess.Popen(
                ["/bin/sh", "-c", _WATCHDOG, "watchdog", str(self._process.pid)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            deadline = time.monotonic() + timeout
            while self._process.poll() is None and time.monotonic() < deadline:
                if self._listens() and self._answers():
                    return True
                time.sleep(_POLL_SECONDS)
        except BaseException:
            self.kill()
            raise
        self.kill()
        return False

    def _config(self) -> dict[str, object]:
        tls = {}
        if self._tls:
            files = {"cert_file": self._tls.certificate, "key_file": self._tls.key}
            tls = {"tls": {name: str(path.resolve()) for name, path in files.items()}}
        protocols = {
            name: {"endpoint": f"{LOOPBACK}:{port}", **tls}
            for name, port in zip(("grpc", "http"), self._bound, strict=True)
        }
        pipelines = {
            name: {"receivers": ["otlp"], "exporters": [f"file/{name}", "debug"]}
            for name in ("traces", "logs", "metrics")
        }
        return {
            "receivers": {"otlp": {"protocols": protocols}},
            "exporters": {
                "debug": {"verbosity": "basic"},
                **{
                    f"file/{name}": {
                        "path": str(self._file(f"{name}.jsonl")),
                        "flush_interval": _FLUSH_INTERVAL,
                    }
                    for name in pipelines
                },
            },
            "service": {"telemetry": {"metrics": {"level": "none"}}, "pipelines": pipelines},
        }

    def _listens(self) -> bool:
        """Is it this process, and not another test's, that listens on both ports?"""
        if not self._process:
            return False
        try:
            connections = psutil.Process(self._process.pid).net_connections("tcp")
        except psutil.Error:
            return False
        listening = {c.laddr.port for c in connections if c.status == psutil.CONN_LISTEN}
        return listening.issuperset(self._bound)

    def _answers(self) -> bool:
        host, port = self.http_address
        connection: http.client.HTTPConnection
        if self._tls:
            context = ssl.create_default_context(cafile=self._tls.authority)
            connection = http.client.HTTPSConnection(host, port, timeout=1.0, context=context)
        else:
            connection = http.client.HTTPConnection(host, port, timeout=1.0)
        with contextlib.closing(connection):
            try:
                connection.request(
                    "POST", "/v1/traces", b"{}", {"Content-Type": "application/json"}
                )
                return connection.getresponse().status == http.client.OK
            except ssl.SSLCertVerificationError:
                raise
            except (OSError, http.client.HTTPException):
                return False

    def _signal(self, number: signal.Signals) -> None:
        if pid := self.pid:  # the process leads a group of its own
            os.killpg(pid, number)

    def _wait_for(
        self, reader: Reader[Record], what: str, timeout: float, at_least: int
    ) -> list[Record]:
        deadline = time.monotonic() + timeout
        while len(records := reader.read()) < at_least:
            if time.monotonic() >= deadline:
                raise CollectorError(
                    f"{len(records)} of {at_least} {what} came in {timeout} s;"
                    f" the Collector says:\n{self._last_words()}"
                )
            time.sleep(_POLL_SECONDS)
        return records

    def _last_words(self) -> str:
        return "\n".join(self.output.splitlines()[-20:]) or "(nothing)"


if __name__ == "__main__":
    raise SystemExit(main())
