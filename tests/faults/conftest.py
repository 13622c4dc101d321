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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table
from tests.support.programs import Program, Reports, Verdict, deliver, judge, nothing_left
from tests.support.receipts import Told, judge_receipts

_COLUMNS = {
    "row": "#",
    "fault": "fault",
    "injected": "injected",
    "calls": "calls",
    "acknowledged": "acknowledged",
    "stored": "stored",
    "let_go": "let go",
    "lost": "lost",
    "duplicated": "twice",
    "over": "> 10 ms",
    "twins_over": "twins",
    "p999": "p99.9 µs",
    "twin_p999": "twin's",
    "seed": "seed",
}


FAULTS = pytest.StashKey[list[pytest.Item]]()
"""All tests of faults that were collected, also those that an option leaves out."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    config.stash[FAULTS] = [item for item in items if "faults" in item.path.parts]
    for item in config.stash[FAULTS]:
        item.add_marker("faults")


@pytest.fixture
def full(pytestconfig: pytest.Config) -> bool:
    """Return whether the tests run at full length."""
    return bool(pytestconfig.getoption("--full"))


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
    told: list[dict[str, Any]] = field(default_factory=list)

    def __call__(
        self,
        number: int,
        fault: str,
        *,
        injected: int | str,
        verdict: Verdict | None = None,
        budget: bool = True,
        **more: Any,
    ) -> None:
        """Enter a line into the table, then check: acknowledged = stored + counted as lost.

        Args:
            number: of the fault, as the documentation counts them.
            fault: in a few words.
            injected: how often.
            verdict: of `judge`; else ``acknowledged``, ``stored`` and ``lost`` are given by name.
            budget: whether the calls' times count: not where the fault stops the caller itself.
            more: figures of the table.
        """
        line = {"row": number, "fault": fault, "injected": injected, "seed": self.seed, **more}
        if verdict is not None:
            line |= {
                "calls": verdict.calls,
                "acknowledged": verdict.acknowledged,
                "stored": verdict.stored,
                "let_go": verdict.let_go,
                "lost": len(verdict.lost),
                "duplicated": len(verdict.duplicated),
            }
            if budget:
                line |= {
                    "over": verdict.over,
                    "twins_over": verdict.twins_over,
                    "p999": round(verdict.p999),
                    "twin_p999": round(verdict.twin_p999),
                }
        self.record("fault", line)
        if verdict is not None:
            verdict.check(budget=budget)
            return
        assert not more["lost"], f"{more['lost']} lost"
        assert more["acknowledged"] <= more["stored"] + more.get("let_go", 0)

    def of_receipts(
        self, number: int, fault: str, store: str, told: Told, *, injected: int, others: int = 0
    ) -> None:
        """Judge receipts, and enter the line: see `judge_receipts`."""
        self(number, fault, injected=injected, **judge_receipts(store, told, others=others))


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
        table.add_column(title, justify="left" if key == "fault" else "right", overflow="fold")
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
