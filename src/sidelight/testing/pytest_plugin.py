"""The pytest plugin: records each test's events in memory, strictly, and checks a budget.

Unless the session has called `configure`, the plugin records in memory, so that no test writes to a
store. The fixture `sidelight_events` returns the recording.
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
    "sidelight(strict=True, deterministic=False): how events are recorded; strict raises errors of"
    " the instrumentation, deterministic gives the same ids and times in every run"
)
_recording: Final = pytest.StashKey[Recorded]()

_Histograms: TypeAlias = dict[str, dict[int, int]]
"""The number of emissions of each point in each bucket of its `record.Costs`."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option and the settings."""
    parser.getgroup("sidelight").addoption(
        "--sidelight-budget",
        metavar="TIME",
        type=_nanoseconds,
        help="fail a test whose emissions take longer at the 99.9th percentile, for example 10ms",
    )
    for name, what in {
        "sidelight_strict": "raise errors of the instrumentation",
        "sidelight_capture": "record a test's events in memory unless sidelight is configured",
    }.items():
        parser.addini(name, what, type="bool", default=True)


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker, and make `configure` strict by default."""
    config.addinivalue_line("markers", _MARKER)
    if config.getini("sidelight_strict"):
        os.environ.setdefault("SIDELIGHT_STRICT", "1")


def _nanoseconds(text: str) -> int:
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise pytest.UsageError(f"--sidelight-budget: {text!r} is not a duration; write 10ms")
    return round(float(found[1]) * _UNITS[found[2]])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """Record what a test and its fixtures emit."""
    if not isinstance(EMITTER.spool, ClosedSpool) or not item.config.getini("sidelight_capture"):
        return (yield)
    with _recorded(item) as item.stash[_recording]:
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Check a test's emissions against the budget."""
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
    """Record what the test emits: see `sidelight.testing.Recorded`.

    ``@pytest.mark.sidelight(deterministic=True)`` gives the same ids and times in every run.
    """
    if (recording := request.node.stash.get(_recording, None)) is not None:
        yield recording
        return
    with _recorded(request.node) as recorded:
        yield recorded


@contextlib.contextmanager
def _recorded(item: pytest.Item) -> Iterator[Recorded]:
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
    """Describe the points whose emissions since ``before`` exceeded the budget."""
    for point, buckets in _histograms().items():
        known = before.get(point, {})
        new = [[bucket, count - known.get(bucket, 0)] for bucket, count in buckets.items()]
        summary = CostSummary.of(point, [{"buckets": new, "max": sys.maxsize, "over": 0}])
        if summary.p999 > budget:
            yield f"{point}: {summary.p999 / 1e6:.3g} ms at p99.9 of {summary.count} emissions"
