"""The pytest plugin: records each test's events in memory, strictly, and checks a budget.

Unless `configure` has been called, the plugin records in memory, so that no test writes to a store.
The fixture `sidelight_events` returns the recording, which goes on whatever the application
configures. A configuration lasts as long as what made it: a test's ends with the test, that of a
module or of a fixture of several tests lasts.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Generator, Iterator
from typing import Any, Final, TypeAlias

import pytest

from sidelight.emission import EMITTER
from sidelight.record import CostSummary
from sidelight.runtime import RUNTIME, restore
from sidelight.settings import Settings
from sidelight.testing.recording import Recorded, recording

_UNITS: Final = {"ns": 1, "us": 1_000, "µs": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ns|us|µs|ms|s)")
_MARKER: Final = (
    "sidelight(strict=True, deterministic=False): how events are recorded; strict raises errors of"
    " the instrumentation, deterministic gives the same ids and times in every run"
)
_recording: Final = pytest.StashKey[Recorded]()
_lasting: Final = pytest.StashKey[Settings | None]()

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
    """Record what a test and its fixtures emit, and undo what the test configures."""
    if not item.config.getini("sidelight_capture"):
        return (yield)
    asked = sidelight_events.__name__ in getattr(item, "fixturenames", ())
    try:
        if RUNTIME.settings is not None and not asked:
            return (yield)  # the session is configured
        with _recorded(item, always=asked) as item.stash[_recording]:
            return (yield)
    finally:
        lasting = item.config.stash.get(_lasting, None)
        if RUNTIME.settings is not lasting:
            restore(lasting)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Note the configuration that modules and conftests have made: it lasts for all tests."""
    session.config.stash[_lasting] = RUNTIME.settings


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, Any, Any]:
    """Note the configuration that a fixture of several tests makes: it outlasts a test."""
    before = RUNTIME.settings
    try:
        return (yield)
    finally:
        if fixturedef.scope != "function" and RUNTIME.settings is not before:
            request.config.stash[_lasting] = RUNTIME.settings


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
    known = request.node.stash.get(_recording, None)
    if known is not None and EMITTER.recording == "always":
        yield known
        return
    with _recorded(request.node, always=True) as recorded:
        yield recorded


@contextlib.contextmanager
def _recorded(item: pytest.Item, *, always: bool) -> Iterator[Recorded]:
    asked: dict[str, bool] = {"strict": bool(item.config.getini("sidelight_strict"))}
    for marker in reversed([*item.iter_markers("sidelight")]):
        if marker.args or marker.kwargs.keys() - {"strict", "deterministic"}:
            raise pytest.UsageError(f"{item.nodeid}: the marker is {_MARKER.partition(':')[0]}")
        asked |= marker.kwargs
    with recording(**{"deterministic": False, **asked}, always=always) as recorded:
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
