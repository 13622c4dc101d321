"""`sidelight doctor`: run the checks, and print each finding at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.table import Table
from rich.text import Text

from sidelight.cli.doctor.directory import check_ready
from sidelight.cli.doctor.findings import Finding
from sidelight.cli.doctor.settings import check_hot, check_settings
from sidelight.cli.options import AsJson, Otlp, Outboxes, SpoolDirectory, StoreUrl, Stream
from sidelight.cli.output import clean, console, print_json, with_hint_of_password
from sidelight.cli.palette import AMBER, GREEN, RED
from sidelight.host import is_directory, not_kept
from sidelight.settings import Settings, disabled, settle
from sidelight.store import plural, symbol

_LOOKS: Final = {
    state: (symbol(state), colour)
    for state, colour in {"ok": GREEN, "note": AMBER, "wrong": RED}.items()
}
_CHECK_WIDTH: Final = 10  # columns


def doctor(
    *,
    ready: Annotated[
        bool,
        typer.Option(
            "--ready",
            help="Check only whether the spool can take records: for readiness probes.",
        ),
    ] = False,
    store: StoreUrl = None,
    stream: Stream = None,
    spool: SpoolDirectory = None,
    otlp: Otlp = None,
    outbox: Outboxes = None,
    group: Annotated[
        str | None,
        typer.Option(
            "--group", metavar="NAME", help="Check how far these consumers of the stream are."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check store, spool, relay and Collector: name what is wrong, and what helps.

    The exit code is 1 where something is wrong. Run the command in the environment of your program.

    With --ready, the command asks neither the store nor the Collector. The exit code is 1 only
    where the spool cannot take records, because it cannot be written or its disk is full. A store
    or a Collector that is down is no reason to take a program out of service.

    Examples:
      sidelight doctor --store sqlite:///events.db --otlp http://localhost:4318

      sidelight doctor --ready
    """
    settings = settle(store, stream=stream, spool=spool, otlp=otlp, outboxes=outbox or None)
    checks = _check_all(settings, group, spool, folded=not as_json)
    findings = _check_ready(settings) if ready else checks
    wrong = notes = 0
    for finding in findings:
        wrong += finding.state == "wrong"
        notes += finding.state == "note"
        if as_json:
            print_json([finding])
        else:
            _print(finding)
    if not as_json and not ready:
        _print_verdict(wrong, notes)
    if wrong:
        raise typer.Exit(1)


def _check_all(
    settings: Settings, group: str | None, spool: Path | None, *, folded: bool
) -> Iterator[Finding]:
    yield from run_checks(settings, group, folded=folded)
    if spool is not None and not is_directory(spool):
        yield Finding(
            "spool",
            "note",
            f"{spool} was named, and does not exist",
            "correct --spool or SIDELIGHT_SPOOL, unless no process has emitted there yet",
        )


def run_checks(
    settings: Settings, group: str | None = None, *, folded: bool = True
) -> Iterable[Finding]:
    """Run all checks, one after the other.

    Args:
        settings: name the places.
        group: the consumers of the stream.
        folded: make one note of those about several spools of other stores.
    """
    for finding in _run_checks(settings, group, folded=folded):
        yield replace(finding, remedy=with_hint_of_password(finding.remedy))


def _run_checks(settings: Settings, group: str | None, *, folded: bool) -> Iterable[Finding]:
    # Slow imports wait until the findings before them are printed.
    from sidelight.cli.doctor.siblings import check_siblings  # noqa: PLC0415
    from sidelight.cli.doctor.spool import check_spool, quarantined_in  # noqa: PLC0415
    from sidelight.cli.doctor.store import check_store, running_in  # noqa: PLC0415

    yield from _check_switches()
    yield from check_settings(settings)
    yield from (Finding("system", "note", *each) for each in not_kept())
    answers = True
    aside = quarantined_in(settings.spool)
    for finding in [] if settings.store is None else check_store(settings, aside):
        answers &= (finding.check, finding.state) != ("store", "wrong")
        yield finding.located(settings)
    if settings.stream is not None:
        from sidelight.cli.doctor.stream import check_stream  # noqa: PLC0415

        found = check_stream(settings.stream, settings.environment, group)
        yield from (each.located(settings) for each in found)
    running = running_in(settings.store) if answers and settings.store is not None else []
    yield from check_spool(settings, running, answers=answers and settings.store is not None)
    yield from check_siblings(settings, folded=folded)
    from sidelight.cli.doctor.outboxes import check_outboxes  # noqa: PLC0415
    from sidelight.cli.spool.segments import outboxes_beside  # noqa: PLC0415

    checked = check_outboxes(settings.outboxes, outboxes_beside(settings))
    yield from (each.located(settings) for each in checked)

    from sidelight.cli.doctor.endpoints import check_endpoints  # noqa: PLC0415

    yield from check_endpoints(settings)


def _check_ready(settings: Settings) -> Iterator[Finding]:
    yield from check_hot(settings)
    yield check_ready(settings.spool)


def _check_switches() -> Iterator[Finding]:
    if disabled():
        value = os.environ["SIDELIGHT_DISABLED"]
        yield Finding(
            "switches", "note", f"SIDELIGHT_DISABLED={value}: nothing is emitted", "unset it"
        )


def _print(finding: Finding) -> None:
    symbol, colour = _LOOKS[finding.state]
    message = Text(clean(finding.message))
    if finding.remedy and finding.state != "ok":
        message.append(f"\n→ {clean(finding.remedy)}", style=colour)
    row = Table.grid(padding=(0, 1, 0, 0))
    row.add_column(no_wrap=True)
    row.add_column(no_wrap=True, style="bold", width=_CHECK_WIDTH)
    row.add_column(overflow="fold")
    row.add_row(Text(symbol, style=colour), finding.check, message)
    out = console()
    if out.is_terminal:
        out.print(row)
        return
    with out.capture() as captured:
        out.print(row)
    lines = captured.get().splitlines()
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in lines))


def _print_verdict(wrong: int, notes: int) -> None:
    verdict = Text("all is well", style=GREEN)
    if notes:
        verdict = Text(f"nothing is wrong; {plural(notes, 'note')} above", style=AMBER)
    if wrong:
        verdict = Text(f"{plural(wrong, 'thing is', 'things are')} wrong", style=f"bold {RED}")
    out = console()
    out.print()
    out.print(verdict)
