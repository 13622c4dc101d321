"""`sidelight overdue`: artifacts for which an expected event did not come."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.text import Text

from sidelight.cli.metrics import exporting_metrics
from sidelight.cli.options import (
    AsJson,
    OfOrganization,
    SpoolDirectory,
    StoreUrl,
    TimeLimit,
    Where,
    seconds_of,
)
from sidelight.cli.output import (
    clean,
    complain,
    named,
    print_json,
    remark,
    remark_left_out,
)
from sidelight.cli.palette import AMBER, GREY, RED
from sidelight.cli.spool.waiting import complain_of_no_directory, marks_here
from sidelight.cli.store.alerts import Told, follow_overdue, measured_by
from sidelight.cli.store.channels import channels_of, check_webhook
from sidelight.cli.store.expected import (
    ExpectMap,
    ExpectModules,
    complain_of_unknown_types,
    expectations_of,
)
from sidelight.cli.store.latency import remark_large
from sidelight.cli.tables import print_table
from sidelight.record import parse_duration
from sidelight.store import (
    Judgement,
    Overdue,
    Store,
    duration,
    moment,
    plural,
    symbol,
    whole_seconds,
)

_EVERY: Final = 10.0  # seconds
_UNKNOWN: Final = 3  # exit code: nothing is overdue, but something is unknown


def overdue(
    *,
    store: StoreUrl = None,
    spool: SpoolDirectory = None,
    map_: ExpectMap = None,
    modules: ExpectModules = None,
    since: Annotated[
        str,
        typer.Option(metavar="TIME", help="Examine artifacts whose wait began at or after this."),
    ] = "7d",
    organization: OfOrganization = None,
    where: Where = None,
    without: Annotated[
        list[str] | None,
        typer.Option(
            "--without",
            metavar="PROCESS",
            help="Expect nothing more from this process: its instance id, which the reason of an "
            "unknown tells. Repeatable.",
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on until Ctrl-C, and tell each overdue once.")
    ] = False,
    command: Annotated[
        str | None,
        typer.Option(
            "--command",
            metavar="COMMAND",
            help="With --follow: run this for each overdue, with the overdue as JSON on stdin.",
        ),
    ] = None,
    webhook: Annotated[
        str | None,
        typer.Option(
            "--webhook", metavar="URL", help="With --follow: POST each overdue there as JSON."
        ),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(
            "--state",
            metavar="FILE",
            help="With --follow: remember in this file what was told, also after a restart.",
        ),
    ] = None,
    every: Annotated[
        float | None,
        typer.Option(
            "--every",
            metavar="SECONDS",
            min=0.1,
            help=f"With --follow: look so often. Default: {_EVERY:g}.",
        ),
    ] = None,
    time_limit: TimeLimit = None,
    as_json: AsJson = False,
) -> None:
    """List artifacts for which an expected event did not come in time.

    A map (or catalogue.expect in code) says what is expected: after an event of one type, one of
    others within a time. The command judges only what processes have delivered. Where a process is
    silent or its delivery is behind, the answer is "unknown", with the reason.

    With --follow, what a command or a webhook does not take is tried again, and a store that does
    not answer is asked again. With --state a restart tells nothing twice, except what was told a
    moment before a kill.

    Exit codes: 1 something is overdue; 3 nothing is overdue, but something is unknown. With
    --follow 0, at Ctrl-C.

    Examples:
      sidelight overdue

      sidelight overdue --follow --webhook https://example.com/alerts
    """
    if not follow:
        _refuse_given(
            {"--command": command, "--webhook": webhook, "--state": state, "--every": every}
        )
    if webhook is not None:
        check_webhook(webhook)
    complain_of_no_directory(spool)
    expected = expectations_of(map_, modules or [])
    if not expected.expectations:
        complain(
            "nothing is expected; write [[expect]] into sidelight.toml (or --map FILE), or name a"
            " module that calls catalogue.expect: --catalogue MODULE"
        )
        raise typer.Exit(2)
    with Store(store) as opened:
        complain_of_unknown_types(expected, (each.type for each in opened.types()))
        _complain_of_unknown_processes(opened, without or ())

        def look() -> Judgement:
            return opened.overdue(
                expected.expectations,
                since=since,
                organization_id=organization,
                where=where or None,
                without=without or (),
                waiting=marks_here(store, opened.processes(running=True), spool),
                time_limit=seconds_of(time_limit, as_json=as_json or follow),
            )

        if follow:
            try:
                with exporting_metrics():
                    measured = measured_by(expected.expectations, look)
                    channels = channels_of(command, webhook)
                    follow_overdue(measured, channels, Told(state), every or _EVERY)
            except KeyboardInterrupt:
                return
        found = look()
    _print(found, since, as_json=as_json)
    if any(each.state == "overdue" for each in found):
        raise typer.Exit(1)
    if found:
        raise typer.Exit(_UNKNOWN)


def _refuse_given(options: Mapping[str, object]) -> None:
    """Refuse options that only a follower takes.

    Raises:
        typer.BadParameter: one is given.
    """
    for option, given in options.items():
        if given is not None:
            raise typer.BadParameter(f"{option} needs --follow")


def _complain_of_unknown_processes(store: Store, without: Collection[str]) -> None:
    running = {each.process for each in store.processes(running=True)} if without else set()
    for each in sorted({*without} - running):
        complain(f"--without {each}: no process that may still run has this instance id")


def _print(found: Judgement, since: str, *, as_json: bool) -> None:
    if as_json:
        print_json(found)
    elif found:
        columns = {
            "": [
                Text(symbol(each.state), style=RED if each.state == "overdue" else AMBER)
                for each in found
            ],
            "artifact": [named(each.artifact_id) for each in found],
            "organization": [named(each.organization_id) for each in found],
            "waits for": [Text(clean(" or ".join(each.one_of))) for each in found],
            "since (UTC)": [Text(moment(each.since)) for each in found],
            "late": [Text(whole_seconds(each.late_ns), style=RED) for each in found],
            "last event": [_last(each) for each in found],
        }
        print_table(columns, right=["late"], lead=["", "artifact", "organization"])
    late = [each for each in found if each.state == "overdue"]
    unknown = [each for each in found if each.state == "unknown"]
    if not as_json:
        window = f"in the last {since}" if parse_duration(since) is not None else f"since {since}"
        remark(f"{_artifacts(late)} overdue, of those whose wait began {window}")
        if unknown:
            remark(f"{_artifacts(unknown)} unknown:")
    for reason in found.unknown:
        complain(f"unknown: {reason}")
    if not as_json and any(each.process for each in unknown):
        remark("add --without INSTANCE for each process that never comes back")
    if found.not_judged:
        decides = "; ".join(found.awaited)
        remark(f"{plural(found.not_judged, 'wait')} not judged yet, until {decides}")
    remark_left_out("artifacts that began", found.left_out)
    remark_large(found.large)


def _artifacts(waits: Sequence[Overdue]) -> str:
    """``2 artifacts``; where an artifact waits for several events: ``2 artifacts (3 waits)``."""
    artifacts = {each.artifact_id for each in waits}
    more = f" ({plural(len(waits), 'wait')})" if len(artifacts) < len(waits) else ""
    return plural(len(artifacts), "artifact") + more


def _last(each: Overdue) -> Text:
    text = Text(clean(each.last_type))
    if each.last_outcome == "abandoned":
        text.append(" abandoned", style=RED)
    if each.last_at == each.since:  # the event that began the wait
        return text
    return text.append(f" after {duration(_ns_between(each))}", style=GREY)


def _ns_between(each: Overdue) -> int:
    return round((each.last_at - each.since).total_seconds() * 1e9)
