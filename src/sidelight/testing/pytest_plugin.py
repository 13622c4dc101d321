"""The pytest plugin: what a test emits, caught in memory; strict; held to a budget.

Unless the session has called `configure` itself, each test's events are caught in memory, so that
no test writes into the store of whoever runs it. The fixture `sidelight_events` hands them out.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Generator, Iterator
from typing import Any, Final, TypeAlias

import pytest

from sidelight.emission import EMITTER, ClosedSpool
from sidelight.record import CostSummary
from sidelight.testing import Recorded, capture

_UNITS: Final = {"ns": 1, "us": 1_000, "µs": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ns|us|µs|ms|s)")
_MARKER: Final = (
    "sidelight(strict=True, deterministic=False): how this test's events are caught; strict raises"
    " what the instrumentation gets wrong, deterministic gives the same ids and times in each run"
)
_caught: Final = pytest.StashKey[Recorded]()

_Histograms: TypeAlias = dict[str, dict[int, int]]
"""How many emissions of each point fell into each bucket of `sidelight.budget`."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options and settings."""
    parser.getgroup("sidelight").addoption(
        "--sidelight-budget",
        metavar="TIME",
        type=_nanoseconds,
        help="fail a test whose emissions cost their callers more at the 99.9th percentile: 10ms",
    )
    for name, what in {
        "sidelight_strict": "raise what the instrumentation gets wrong",
        "sidelight_capture": "catch in memory what a test emits while nothing is configured",
    }.items():
        parser.addini(name, what, type="bool", default=True)


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker; make strict what the tests configure themselves."""
    config.addinivalue_line("markers", _MARKER)
    if config.getini("sidelight_strict"):
        os.environ.setdefault("SIDELIGHT_STRICT", "1")


def _nanoseconds(text: str) -> int:
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise pytest.UsageError(f"--sidelight-budget: {text!r} is no duration; write 10ms")
    return round(float(found[1]) * _UNITS[found[2]])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """Catch what a test emits, its fixtures included."""
    if not isinstance(EMITTER.spool, ClosedSpool) or not item.config.getini("sidelight_capture"):
        return (yield)
    with _catching(item) as item.stash[_caught]:
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Hold a test's emissions to the budget."""
    budget = item.config.getoption("--sidelight-budget")
    if budget is None:
        return (yield)
    before = _histograms()
    outcome = yield
    if breaches := [*_breaches(before, budget)]:
        pytest.fail("over the budget of emissions: " + "; ".join(breaches), pytrace=False)
    return outcome


@pytest.fixture
def sidelight_events(request: pytest.FixtureRequest) -> Iterator[Recorded]:
    """What this test has emitted (see `sidelight.testing.Recorded`); it is written nowhere.

    ``@pytest.mark.sidelight(deterministic=True)`` gives the same ids and times in every run.
    """
    if (caught := request.node.stash.get(_caught, None)) is not None:
        yield caught
        return
    with _catching(request.node) as recorded:
        yield recorded


@contextlib.contextmanager
def _catching(item: pytest.Item) -> Iterator[Recorded]:
    asked: dict[str, bool] = {"strict": bool(item.config.getini("sidelight_strict"))}
    for marker in reversed([*item.iter_markers("sidelight")]):
        if marker.args or marker.kwargs.keys() - {"strict", "deterministic"}:
            raise pytest.UsageError(f"{item.nodeid}: the marker is {_MARKER.partition(':')[0]}")
        asked |= marker.kwargs
    with capture(**asked) as recorded:
        yield recorded


def _histograms() -> _Histograms:
    costs = EMITTER.costs.copy()
    return {point: dict(each.snapshot()["buckets"]) for point, each in costs.items()}


def _breaches(before: _Histograms, budget: int) -> Iterator[str]:
    """The points whose emissions since then have cost more, in words."""
    for point, buckets in _histograms().items():
        known = before.get(point, {})
        new = [[bucket, count - known.get(bucket, 0)] for bucket, count in buckets.items()]
        told = CostSummary.of(point, [{"buckets": new, "max": sys.maxsize, "over": 0}])
        if told.p999 > budget:
            yield f"{point}: {told.p999 / 1e6:.3g} ms at p99.9 of {told.count} emissions"
