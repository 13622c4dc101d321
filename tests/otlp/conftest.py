"""One Collector for all tests of a worker that only send to it."""

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
    """No variable of the machine's decides where things go."""
    for name in os.environ:
        if name.startswith(("OTEL_", "SIDELIGHT_")) or name.lower().endswith(
            ("_proxy", "_ca_bundle")
        ):
            monkeypatch.delenv(name)
