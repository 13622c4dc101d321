"""One Collector for all tests of a worker that only send to it, and both protocols."""

import os
from collections.abc import Iterator

import pytest
from tests.support.collector import Collector, require_collector


@pytest.fixture(scope="session")
def shared_collector() -> Iterator[Collector]:
    require_collector()
    with Collector() as running:
        yield running


@pytest.fixture
def plain_otel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove every variable of the machine that decides where telemetry goes."""
    for name in os.environ:
        if name.startswith(("OTEL_", "SIDELIGHT_")) or name.lower().endswith(
            ("_proxy", "_ca_bundle")
        ):
            monkeypatch.delenv(name)


@pytest.fixture(params=["http/protobuf", "grpc"])
def protocol(request: pytest.FixtureRequest, plain_otel: None, monkeypatch: pytest.MonkeyPatch):
    """Each protocol, set in the environment."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", request.param)
    return request.param


@pytest.fixture
def endpoint(shared_collector: Collector, protocol: str) -> str:
    """The shared Collector's endpoint for the protocol."""
    return shared_collector.endpoint(protocol)
