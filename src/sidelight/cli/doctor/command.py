"""`sidelight doctor`: what is wrong, in words."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Annotated, Final

import typer
from rich.table import Table
from rich.text import Text

from sidelight.cli.doctor.findings import Finding
from sidelight.cli.doctor.free_space import check_ready
from sidelight.cli.options import AsJson, Otlp, SpoolDirectory, StoreUrl
from sidelight.cli.output import clean, console, plural, print_json
from sidelight.settings import Settings, settle

_LOOKS: Final = {"ok": ("✓", "green"), "note": ("!", "yellow"), "wrong": ("✗", "red")}
_CHECK: Final = 10  # cells for the name of a check


def doctor(
    *,
    ready: Annotated[
        bool,
        typer.Option(
            "--ready",
            help="Only whether what is emitted here can be kept: for readiness probes.",
        ),
    ] = False,
    store: StoreUrl = None,
    spool: SpoolDirectory = None,
    otlp: Otlp = None,
    as_json: AsJson = False,
) -> None:
    """Look for what is wrong with store, spool, relay and collector, and say what helps.

    Ends with 1 where something is wrong. Give it the environment that your program has.

    With --ready it asks neither store nor collector, and ends with 1 only where the spool cannot
    take what is emitted: because it cannot be written, or its disk is full. A store or a collector
    that is down is no reason to take a program out of service.

    Examples:
      sidelight doctor --store sqlite:///events.db --otlp http://localhost:4318

      sidelight doctor --ready
    """
    settings = settle(store, spool=spool, otlp=otlp)
    found = [check_ready(settings.spool)] if ready else _examine(settings)
    wrong = 0
    for finding in found:
        wrong += finding.state == "wrong"
        if as_json:
            print_json([finding])
        else:
            _print(finding)
    if not as_json and not ready:
        _print_verdict(wrong)
    if wrong:
        raise typer.Exit(1)


def _examine(settings: Settings) -> Iterable[Finding]:
    """Look at everything, one thing after the other."""
    # What is slow to import is imported when what comes before has been said.
    from sidelight.cli.doctor.backlog import check_spool  # noqa: PLC0415
    from sidelight.cli.doctor.stored import check_store  # noqa: PLC0415

    yield from _check_switches()
    answers = True
    for finding in check_store(settings.store):
        answers &= (finding.check, finding.state) != ("store", "wrong")
        yield finding
    yield from check_spool(settings.spool, settings.store if answers else None)

    from sidelight.cli.doctor.endpoints import check_endpoints  # noqa: PLC0415

    yield from check_endpoints(settings)


def _check_switches() -> Iterator[Finding]:
    if os.environ.get("SIDELIGHT_DISABLED", "") not in {"", "0"}:
        yield Finding(
            "switches", "note", "SIDELIGHT_DISABLED is set: nothing is emitted", "unset it"
        )


def _print(finding: Finding) -> None:
    """Print one finding as soon as it is there: the next may take a while."""
    symbol, colour = _LOOKS[finding.state]
    message = Text(clean(finding.message))
    if finding.remedy and finding.state != "ok":
        message.append(f"\n→ {clean(finding.remedy)}", style=colour)
    row = Table.grid(padding=(0, 1, 0, 0))
    row.add_column(no_wrap=True)
    row.add_column(no_wrap=True, style="bold", width=_CHECK)
    row.add_column(overflow="fold")
    row.add_row(Text(symbol, style=colour), finding.check, message)
    console().print(row)


def _print_verdict(wrong: int) -> None:
    verdict = Text("all is well", style="green")
    if wrong:
        verdict = Text(f"{plural(wrong, 'thing is', 'things are')} wrong", style="bold red")
    out = console()
    out.print()
    out.print(verdict)
