"""The promise under fault: each test enters a row into a table of results.

``make faults`` runs the tests at full length, and ``make test`` a shortened form. The seed of a
test follows from its name, and stands in the table.
"""

from __future__ import annotations

import random
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table
from tests.support.balance import Balance
from tests.support.programs import Program, Reports, Verdict, deliver, judge, nothing_left
from tests.support.receipts import Told, judge_receipts

_COLUMNS = {
    "row": "#",
    "fault": "fault",
    "injected": "injected",
    "calls": "calls",
    "acknowledged": "acknowledged",
    "stored": "stored",
    "counted": "counted",
    "lost": "lost",
    "twice": "twice",
    "beside": "beside",
    "over": "> 10 ms",
    "twins_over": "twins",
    "p999": "p99.9 µs",
    "twin_p999": "twin's",
    "seed": "seed",
}
_BALANCE = ("acknowledged", "stored", "counted", "lost", "twice", "beside")


FAULTS = pytest.StashKey[list[pytest.Item]]()
"""All tests of faults that were collected, also those that an option leaves out."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    config.stash[FAULTS] = [item for item in items if Path(__file__).parent in item.path.parents]
    for item in config.stash[FAULTS]:
        item.add_marker("faults")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("long") and not item.config.getoption("--full"):
        pytest.skip("in `make faults`")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Fail a test that asks for a row and enters none."""
    report: pytest.TestReport = yield
    asks = report.when == "call" and "row" in getattr(item, "fixturenames", ())
    if asks and report.passed and "fault" not in dict(item.user_properties):
        report.outcome, report.longrepr = "failed", "it has entered no row"
    return report


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Derive the seed of this test from its name. The table and a failure show it."""
    number = zlib.crc32(request.node.nodeid.encode())
    print("seed", number)
    return number


@pytest.fixture
def randomness(seed: int) -> random.Random:
    """Yield the same random numbers in each run."""
    return random.Random(seed)


@pytest.fixture
def progress(request: pytest.FixtureRequest, full: bool) -> Callable[[str], None]:
    """Print the progress of a long test: each second on a terminal, else each 10 s."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    every = 1.0 if sys.stderr.isatty() else 10.0
    last = time.monotonic()

    def tell(how_far: str) -> None:
        nonlocal last
        if full and time.monotonic() - last > every:
            last = time.monotonic()
            with capture.global_and_fixture_disabled():
                print(f"  {request.node.name}: {how_far}", file=sys.stderr, flush=True)

    return tell


@dataclass
class Row:
    """Enters rows into the table."""

    record: Callable[[str, object], None]
    seed: int

    def __call__(
        self,
        number: int,
        fault: str,
        *,
        injected: int | str,
        verdict: Verdict | Balance,
        budget: bool = True,
    ) -> None:
        """Enter a line into the table, then check: acknowledged = stored + counted as lost.

        Args:
            number: of the fault, as the documentation counts them.
            fault: in a few words.
            injected: how often.
            verdict: of `judge`, or of `balance` where there are no calls to judge.
            budget: whether the calls' times count: not where the fault stops the caller itself.
        """
        found = verdict if isinstance(verdict, Balance) else verdict.balance
        line = {"row": number, "fault": fault, "injected": injected, "seed": self.seed}
        line |= {name: getattr(found, name) for name in _BALANCE}
        if isinstance(verdict, Verdict):
            line["calls"] = verdict.calls
            if budget:
                line |= {
                    "over": verdict.over,
                    "twins_over": verdict.twins_over,
                    "p999": round(verdict.p999),
                    "twin_p999": round(verdict.twin_p999),
                }
        self.record("fault", line)
        if isinstance(verdict, Verdict):
            verdict.check(budget=budget)
        found.check()

    def of_receipts(
        self, number: int, fault: str, store: str, told: Told, *, injected: int, others: int = 0
    ) -> None:
        """Judge receipts, and enter the line: see `judge_receipts`."""
        self(number, fault, injected=injected, verdict=judge_receipts(store, told, others=others))


@pytest.fixture
def row(record_property: Callable[[str, object], None], seed: int) -> Iterator[Row]:
    """Enter a row into the table, and check the promise."""
    yield Row(record_property, seed)


@pytest.fixture
def store(tmp_path: Path) -> str:
    """Name a new SQLite store."""
    return f"sqlite:///{tmp_path / 'events.db'}"


@pytest.fixture
def settled(row: Row) -> Callable[..., Verdict]:
    """Deliver what the programs left, check the promise, and enter the row of the table."""

    def settle(
        number: int,
        fault: str,
        store: str,
        *programs: Program,
        injected: int | str,
        spool: Path | None = None,
        otlp: str | None = None,
        reports: Reports | None = None,
        budget: bool = True,
    ) -> Verdict:
        deliver(store, spool, otlp=otlp)
        verdict = judge(store, *programs, reports=reports)
        row(number, fault, injected=injected, verdict=verdict, budget=budget)
        nothing_left(store, spool)
        return verdict

    return settle


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the table."""
    lines = [
        value | {"failed": report.failed}
        for reports in terminalreporter.stats.values()
        for report in reports
        if isinstance(report, pytest.TestReport) and report.when == "call"
        for name, value in report.user_properties
        if name == "fault"
    ]
    if not lines:
        return
    table = Table(title="the promise under fault", title_justify="left", padding=(0, 1))
    for key, title in _COLUMNS.items():
        is_fault = key == "fault"
        table.add_column(
            title,
            justify="left" if is_fault else "right",
            overflow="fold",
            min_width=24 if is_fault else None,
        )
    for line in sorted(lines, key=lambda line: (line["row"], line["fault"])):
        cells = [_cell(line.get(key)) for key in _COLUMNS]
        table.add_row(*cells, style="bold red" if line["failed"] else None)
    console = Console(
        file=terminalreporter._tw._file, width=max(140, terminalreporter._tw.fullwidth)
    )
    console.print()
    console.print(table)


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) and value < 1 << 24 else str(value)
