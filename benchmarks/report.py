"""The results as plain tables: the terminal, Markdown and JSON show the same tables."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks import ours
from benchmarks.budget import ALLOWED, Verdict
from benchmarks.floor import BARE, FLOOR
from benchmarks.goals import Goal, goals
from benchmarks.host_work import COMMAND as HOST_COMMAND
from benchmarks.host_work import RATES, HostWork
from benchmarks.import_time import OURS, THEIRS, ImportTime
from benchmarks.peers import SPAN
from benchmarks.picture import draw
from benchmarks.relay_speed import RelaySpeed
from benchmarks.scenarios import PAUSING, TIGHT, Condition, Matrix
from benchmarks.stats import Measured
from benchmarks.whole_cost import COMMAND, WholeCost

DIRECTORY: Final = Path(__file__).parent / "report"
README: Final = Path(__file__).parents[1] / "README.md"
MARKS: Final = ("<!-- costs -->\n", "<!-- /costs -->")
IN_README: Final = {
    BARE: "the bare call",
    f"{ours.title('scheduled')}, relay idle": (
        "**sidelight: event and span, kill-safe in the spool**"
    ),
    f"{ours.title('scheduled', span=False)}, relay idle": "sidelight: event without a span",
    FLOOR: "the floor: a wrapt call, two clocks, one `os.write` of 256 bytes",
    "structlog JSON line": "structlog, a JSON line to a file",
    "Sentry span": "Sentry span, discarded",
    "Eliot action": "Eliot, to a file",
    SPAN: "OpenTelemetry SDK span with a batch processor that keeps nothing",
    "direct SQLite insert": "a direct insert into SQLite",
    "ddtrace span": "ddtrace span, discarded",
    "Logfire span": "Logfire span, discarded",
}
"""The calls that README shows, by their titles, in README's words."""
NOTE: Final = (
    "Microseconds. Absolute times are this machine's, at that moment, with whatever else it was"
    " doing; what carries over are the ratios and the differences from the control (the same work,"
    " undecorated, timed right before each call). Ratios are medians over rounds taken in turns."
    " Stored: the share of awaited calls that returned with their event in the store. A dash: too"
    " few calls for that quantile."
)
WORDS: Final = frozenset(
    {
        "aim",
        "emissions",
        "store",
        "caller",
        "call",
        "what",
        "one call in a tight loop",
        "",
        "beside",
    }
    | {"one event, on all threads of the process"}
)
"""Columns of text; all others are numbers."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table with a title; its cells are text already."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything that one run measured; what it did not measure is None or empty."""

    machine: dict[str, Any]
    verdicts: Sequence[Verdict]
    matrix: Matrix | None = None
    imports: ImportTime | None = None
    relay: RelaySpeed | None = None
    whole: WholeCost | None = None
    host: HostWork | None = None

    def goals(self) -> list[Goal]:
        """The aims, beside what was reached."""
        matrix, imports, relay, whole = self.matrix, self.imports, self.relay, self.whole
        if matrix is None or imports is None or relay is None or whole is None:
            return []
        return goals(matrix, self.verdicts, imports, relay, whole)

    def sheets(self) -> Iterable[Sheet]:
        """The tables in the order of the report."""
        if found := self.goals():
            yield _goal_sheet(found)
        if self.verdicts:
            yield _budget_sheet(self.verdicts)
        if self.matrix is not None:
            for condition, cells in self.matrix.cells.items():
                yield _condition_sheet(condition, cells)
        if self.imports is not None and self.relay is not None:
            yield _other_sheet(self.imports, self.relay)
        if self.whole is not None:
            yield _whole_sheet(self.whole)
        if self.host is not None:
            yield _host_sheet(self.host)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: every number that the tables are made of."""
        matrix = [] if self.matrix is None else self.matrix.each()
        return {
            "machine": self.machine,
            "goals": [asdict(goal) for goal in self.goals()],
            "budget": [
                {
                    "check": str(verdict.check),
                    "emissions": verdict.emissions.as_dict(),
                    "control": verdict.control.as_dict(),
                    "excess": verdict.excess,
                    "verdict": verdict.word,
                }
                for verdict in self.verdicts
            ],
            "calls": [
                {
                    "condition": str(condition),
                    "subject": title,
                    "stored": measured.stored(),
                    "call": measured.summary().as_dict(),
                    "control": measured.control().as_dict(),
                }
                for condition, title, measured in matrix
            ],
            "absent": {} if self.matrix is None else self.matrix.absent,
            "import": self.imports and asdict(self.imports),
            "relay": self.relay and asdict(self.relay),
            "whole cost": self.whole and asdict(self.whole),
            "host's work": self.host and asdict(self.host),
        }


def show(findings: Findings, console: Console) -> None:
    """Print it all."""
    for sheet in findings.sheets():
        console.print()
        table = Table(title=sheet.title, title_justify="left", title_style="bold")
        for column in sheet.columns:
            words = column in WORDS
            table.add_column(column, justify="left" if words else "right", no_wrap=not words)
        for row in sheet.rows:
            table.add_row(*row)
        console.print(table)
    if findings.matrix is not None:
        console.print(NOTE)
        for house, reason in findings.matrix.absent.items():
            console.print(f"Left out: {house} ({reason})")


def save(findings: Findings, directory: Path = DIRECTORY) -> list[Path]:
    """Write Markdown, JSON and, if there are figures to draw, the pictures."""
    directory.mkdir(parents=True, exist_ok=True)
    text, data = directory / "report.md", directory / "report.json"
    pictures: list[Path] = []
    if findings.matrix is not None:
        pictures = draw(findings.matrix, directory)
    text.write_text(_markdown(findings, pictures), encoding="utf-8")
    data.write_text(json.dumps(findings.as_dict(), indent=1), encoding="utf-8")
    return [text, data, *pictures]


def into_readme(findings: Findings, readme: Path = README) -> None:
    """Replace the tables between README's marks by those of this run.

    Raises:
        ValueError: the run did not measure calls and whole cost, or README has no marks.
    """
    if findings.matrix is None or findings.whole is None:
        raise ValueError("this run did not measure the tables of README")
    begin, end = MARKS
    before, found, rest = readme.read_text(encoding="utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"{readme} has no {begin.strip()} … {end}")
    sheets = [_readme_sheet(findings.matrix), _whole_sheet(findings.whole)]
    tables = "\n".join("\n".join(_table(sheet)) + "\n" for sheet in sheets)
    readme.write_text(f"{before}{begin}{tables}{end}{after}", encoding="utf-8")


def _readme_sheet(matrix: Matrix) -> Sheet:
    """The calls that README shows, the cheapest first; the bare call has no ratios."""
    cells, pausing = matrix.cells[TIGHT], matrix.cells[PAUSING]
    sheet = Sheet(
        "",
        (
            *("one call in a tight loop", "p50, µs", "p99, µs"),
            *("÷ sidelight", "÷ SDK span", "p50 after a pause of 2 ms, µs"),
        ),
    )
    titles = [title for title in IN_README if title in cells]
    mine = cells[f"{ours.title('scheduled')}, relay idle"]
    for title in sorted(titles, key=lambda title: cells[title].summary().p50):
        call = cells[title].summary()
        ratios = [f"{cells[title].ratio_to(other):.2g}" for other in (mine, cells[SPAN])]
        sheet.rows.append(
            (
                IN_README[title],
                micro(call.p50),
                micro(call.p99),
                *(["", ""] if title == BARE else ratios),
                micro(pausing[title].summary().p50),
            )
        )
    return sheet


def _whole_sheet(whole: WholeCost) -> Sheet:
    return Sheet(
        f"The whole process: for each event, and added to it once ({COMMAND})",
        (
            *("one event, on all threads of the process", "caller p50, µs", "CPU, µs"),
            *("objects", "full collection, ms", "memory, MB", "modules"),
        ),
        [
            (
                subject,
                *(f"{value:.1f}" for value in (cost.caller, cost.cpu)),
                *(f"{cost.objects:,.0f}", f"{max(cost.pause, 0):.1f}"),
                *(f"{cost.megabytes:.0f}", f"{cost.modules:.0f}"),
            )
            for subject, cost in whole.costs.items()
        ],
    )


def _host_sheet(host: HostWork) -> Sheet:
    return Sheet(
        f"How much slower a CPU-bound thread of the host gets ({HOST_COMMAND})",
        ("beside", *(f"{rate:,} events/s" for rate in RATES)),
        [
            (subject, *(f"{shares[rate]:+.1%}" for rate in RATES))
            for subject, shares in host.slower.items()
        ],
    )


def _table(sheet: Sheet) -> list[str]:
    rule = (":--" if column in WORDS else "--:" for column in sheet.columns)
    return [_line(sheet.columns), _line(rule), *map(_line, sheet.rows)]


def _markdown(findings: Findings, pictures: Sequence[Path]) -> str:
    lines = ["# What sidelight costs its caller", ""]
    if findings.matrix is not None:
        lines += [NOTE, ""]
    lines += [
        f"![Histogram of the calls]({picture.name})\n"
        for picture in pictures
        if picture.suffix == ".svg"
    ]
    for sheet in findings.sheets():
        lines += [f"## {sheet.title}", "", *_table(sheet), ""]
    absent = {} if findings.matrix is None else findings.matrix.absent
    lines += [f"Left out: {house} ({reason})\n" for house, reason in absent.items()]
    lines += ["## Measured on", ""]
    for name, value in findings.machine.items():
        shown = value
        if isinstance(value, dict):
            shown = ", ".join(f"{package} {version}" for package, version in value.items())
        lines.append(f"- {name}: {shown}")
    return "\n".join(lines) + "\n"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _goal_sheet(found: Sequence[Goal]) -> Sheet:
    rows: list[tuple[str, ...]] = [
        (goal.what, goal.aim, goal.reached, goal.verdict) for goal in found
    ]
    return Sheet("What was aimed at, and what was reached", ("aim", "at most", "reached", ""), rows)


def _budget_sheet(verdicts: Sequence[Verdict]) -> Sheet:
    sheet = Sheet(
        f"Budget: emissions over 10 ms, no more than {ALLOWED:.2%} above the control's",
        (
            *("emissions", "store", "caller", "calls", "p50", "p99.9", "max"),
            *(">10 ms", "control", "excess", ""),
        ),
    )
    for verdict in verdicts:
        emissions = verdict.emissions
        sheet.rows.append(
            (
                verdict.check.subject,
                verdict.check.store,
                str(verdict.check.condition),
                f"{emissions.calls:,}",
                micro(emissions.p50),
                micro(emissions.p999),
                micro(emissions.max),
                f"{emissions.share_over:.3%}",
                f"{verdict.control.share_over:.3%}",
                f"{verdict.excess:+.3%}",
                verdict.word,
            )
        )
    return sheet


def _condition_sheet(condition: Condition, cells: dict[str, Measured]) -> Sheet:
    sheet = Sheet(
        str(condition),
        (
            *("call", "calls", "stored", "p50", "p99", "p99.9", "max", ">10 ms"),
            *("control p50", "p99", "p99.9", ">10 ms", "÷ floor", "÷ SDK span"),
        ),
    )
    for title, measured in cells.items():
        call, control, stored = measured.summary(), measured.control(), measured.stored()
        sheet.rows.append(
            (
                title,
                f"{call.calls:,}",
                "" if stored is None else f"{stored:.0%}",
                *(micro(value) for value in (call.p50, call.p99, call.p999, call.max)),
                f"{call.share_over:.2%}",
                *(micro(value) for value in (control.p50, control.p99, control.p999)),
                f"{control.share_over:.2%}",
                f"{measured.ratio_to(cells[FLOOR]):.2f}",
                f"{measured.ratio_to(cells[SPAN]):.3f}",
            )
        )
    return sheet


def _other_sheet(imports: ImportTime, relay: RelaySpeed) -> Sheet:
    return Sheet(
        "Import, and relay into SQLite with counters and indexes",
        ("what", "measured"),
        [
            (f"import {OURS}", f"{imports.ours:.1f} ms"),
            (f"import {THEIRS}", f"{imports.theirs:.1f} ms"),
            ("ratio", f"{imports.ratio:.2f}"),
            (f"relay, {relay.events:,} events", f"{relay.per_second:,.0f} events/s"),
            ("relay, by its own processor time", f"{relay.per_cpu_second:,.0f} events/s"),
        ],
    )


def micro(value: float | None) -> str:
    """Microseconds with about three digits."""
    if value is None:
        return "—"
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}" if value < 10 else f"{value:.1f}"
