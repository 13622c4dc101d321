"""`sidelight events` and `sidelight tail`: list events, or follow them as they are stored."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Final

import typer
from rich.text import Text

from sidelight.cli.options import (
    AsJson,
    EventFilters,
    OfArtifact,
    OfTrace,
    OfType,
    Since,
    StoreUrl,
    TimeLimit,
    Until,
    filtered,
    seconds_of,
)
from sidelight.cli.output import (
    attributes,
    clean,
    console,
    named,
    outcome_symbol,
    print_json,
    remark,
    remark_left_out,
)
from sidelight.cli.palette import CYAN, GREY
from sidelight.cli.spool.waiting import remark_waiting
from sidelight.cli.store.unknown import remark_unknown, require_artifact
from sidelight.cli.tables import print_table
from sidelight.store import Event, Store, duration, moment

_LATEST: Final = 50  # events in a table without --limit
_ATTRIBUTE_LINES: Final = 2  # of an event


@filtered
def events(
    *,
    store: StoreUrl = None,
    artifact: OfArtifact = None,
    types: OfType = None,
    trace: OfTrace = None,
    filters: EventFilters,
    since: Since = None,
    until: Until = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            "-n",
            min=1,
            help=f"Show only the latest N. Default: {_LATEST} in a table, all as JSON.",
        ),
    ] = None,
    newest_first: Annotated[
        bool, typer.Option("--newest-first", help="Show the latest event at the top.")
    ] = False,
    time_limit: TimeLimit = None,
    as_json: AsJson = False,
) -> None:
    """List events in the order in which they occurred.

    Examples:
      sidelight events --since 15m

      sidelight events --failed --where 'words>100'

      sidelight events --type draft_rejected --since 7d --json | jq .attributes
    """
    with Store(store) as opened:
        require_artifact(opened, store, artifact)
        shown = limit or (None if as_json else _LATEST)
        latest_first = newest_first or shown is not None
        answer = opened.events(
            artifact_id=artifact,
            type=types or None,
            trace_id=trace,
            since=since,
            until=until,
            limit=shown,
            newest_first=latest_first,
            time_limit=seconds_of(time_limit, as_json=as_json),
            **filters,
        )
        remark_unknown(opened, types, filters)
        found: Iterable[Event] = answer
        if shown is not None and not newest_first:
            found = reversed(list(answer))
        listed = [] if as_json else list(found)
        if as_json:
            print_json(found)
        elif listed:
            _print_events(listed)
        else:
            remark(f"{opened.url} holds no such events")
    if len(listed) == shown and limit is None:
        remark(f"only the latest {shown}; --limit shows more, --json shows all")
    remark_left_out("events", answer.left_out, oldest_first=not latest_first)
    remark_waiting(store)


def _print_events(listed: Sequence[Event]) -> None:
    days = {event.occurred_at.date() for event in listed}
    today = datetime.now(UTC).date() if days == {datetime.now(UTC).date()} else None
    columns = {
        "time (UTC)": [Text(moment(event.occurred_at, today=today)) for event in listed],
        "event": [Text.assemble(outcome_symbol(e), " ", clean(e.type)) for e in listed],
        "artifact": [named(event.artifact_id) for event in listed],
        "organization": [named(event.organization_id) for event in listed],
        "took": [Text(duration(event.duration_ns)) for event in listed],
        "attributes": [attributes(event) for event in listed],
    }
    print_table(
        columns,
        right=["took"],
        lead=["time (UTC)", "event", "took"],
        prose="attributes",
        most=_ATTRIBUTE_LINES,
    )


@filtered
def tail(
    *,
    store: StoreUrl = None,
    artifact: OfArtifact = None,
    types: OfType = None,
    trace: OfTrace = None,
    filters: EventFilters,
    last: Annotated[
        int, typer.Option("--last", "-n", min=0, help="Begin with the latest N stored events.")
    ] = 10,
    as_json: AsJson = False,
) -> None:
    """Follow events as they are stored, until Ctrl-C.

    Examples:
      sidelight tail --type transcription_failed

      sidelight tail -n 0 --json | jq --unbuffered .type
    """
    try:
        with Store(store) as opened:
            following = opened.follow(
                artifact_id=artifact,
                type=types or None,
                trace_id=trace,
                last=last,
                **filters,
            )
            remark_unknown(opened, types, filters)
            if as_json:
                print_json(following)
            out = console()
            for event in following:
                out.print(_line(event), soft_wrap=True)
                sys.stdout.flush()
    except KeyboardInterrupt:
        if not as_json:
            sys.stdout.write("\n")


def _line(event: Event) -> Text:
    line = Text.assemble(
        (moment(event.occurred_at, today=datetime.now(UTC).date()), GREY),
        "  ",
        outcome_symbol(event),
        " ",
        (clean(event.type), "bold"),
        "  ",
        named(event.artifact_id),
    )
    if event.organization_id:
        line.append(f"  {clean(event.organization_id)}")
    if event.duration_ns is not None:
        line.append(f"  {duration(event.duration_ns)}", style=CYAN)
    if event.attributes:
        line.append("  ")
        line.append(attributes(event))
    return line
