"""The commands that ask the store: events, artifacts, timeline, counts, budget, tail."""

from __future__ import annotations

import difflib
import io
import sys
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.text import Text

from sidelight.cli.options import (
    AsJson,
    OfArtifact,
    OfOrganization,
    OfTrace,
    OfType,
    Since,
    StoreUrl,
    Until,
)
from sidelight.cli.output import (
    ago,
    attributes,
    clean,
    complain,
    console,
    duration,
    last_column_fills,
    moment,
    named,
    number,
    outcome_symbol,
    plural,
    print_json,
    remark,
    table,
)
from sidelight.cli.store.timeline import Picture
from sidelight.record import BUDGET_NS
from sidelight.store import Count, Event, Store

_LATEST: Final = 50  # events that a table shows where nobody says how many
_ROOM_FOR_ATTRIBUTES: Final = 24  # cells
_SVG_COLUMNS: Final = 110


def events(
    *,
    store: StoreUrl = None,
    artifact: OfArtifact = None,
    organization: OfOrganization = None,
    types: OfType = None,
    trace: OfTrace = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            "-n",
            min=1,
            help=f"The latest so many. Without it {_LATEST} in a table, all of them as JSON.",
        ),
    ] = None,
    newest_first: Annotated[
        bool, typer.Option("--newest-first", help="The latest at the top.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List events in the order in which they occurred.

    Examples:
      sidelight events --since 15m

      sidelight events --type transcription_failed --since 7d --json | jq .attributes
    """
    with Store(store) as opened:
        shown = limit or (None if as_json else _LATEST)
        found: Iterable[Event] = opened.events(
            artifact_id=artifact,
            organization_id=organization,
            type=types or None,
            trace_id=trace,
            since=since,
            until=until,
            limit=shown,
            newest_first=newest_first or shown is not None,
        )
        if shown is not None and not newest_first:
            found = reversed(list(found))
        if as_json:
            print_json(found)
            return
        listed = list(found)
        if not listed:
            remark(f"no such events in {opened.url}")
            return
        _print_events(listed)
        if len(listed) == shown and limit is None:
            remark(f"the latest {shown}; more with --limit, all with --json")


def _print_events(listed: list[Event]) -> None:
    """A table of what there is room for: organization and attributes go first."""
    out = console()
    days = {event.occurred_at.date() for event in listed}
    today = datetime.now(UTC).date() if days == {datetime.now(UTC).date()} else None
    columns = {
        "time (UTC)": [Text(moment(event.occurred_at, today=today)) for event in listed],
        "event": [Text.assemble(outcome_symbol(e), " ", clean(e.type)) for e in listed],
        "artifact": [named(event.artifact_id) for event in listed],
        "organization": [named(event.organization_id) for event in listed],
        "took": [Text(duration(event.duration_ns)) for event in listed],
    }
    room = out.width - sum(
        3 + max(len(name), *(text.cell_len for text in texts)) for name, texts in columns.items()
    )
    if room < 0:
        del columns["organization"]
    if room >= _ROOM_FOR_ATTRIBUTES:
        columns["attributes"] = [attributes(event) for event in listed]
    rows = table(*columns, right=["took"])
    rows.columns[0].no_wrap = True
    if "attributes" in columns:
        last_column_fills(rows, out)
    for row in zip(*columns.values(), strict=True):
        rows.add_row(*row)
    out.print(rows)


def artifacts(
    *,
    store: StoreUrl = None,
    organization: OfOrganization = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, help="No more than so many.")
    ] = _LATEST,
    as_json: AsJson = False,
) -> None:
    """List artifacts, those first to which something happened last.

    Example:
      sidelight artifacts --organization northwind --since 1d
    """
    with Store(store) as opened:
        found = opened.artifacts(
            organization_id=organization, since=since, until=until, limit=limit
        )
        if as_json:
            print_json(found)
            return
        if not found:
            remark(f"no such artifacts in {opened.url}")
            return
        rows = table("artifact", "organization", "events", "first", "last", right=["events"])
        for each in found:
            rows.add_row(
                named(each.artifact_id),
                named(each.organization_id),
                number(each.events),
                moment(each.first_event_at),
                ago(each.last_event_at),
            )
        console().print(rows)


def timeline(
    artifact: Annotated[str, typer.Argument(metavar="ARTIFACT", help="The artifact's id.")],
    *,
    store: StoreUrl = None,
    svg: Annotated[
        Path | None,
        typer.Option("--svg", metavar="FILE", help="Write the picture to an SVG file instead."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Draw all that happened to an artifact: when, for how long, and how it ended.

    Each line is an event; its bar is the call that it comes from. A dotted line is a call that was
    only seen to start, up to what followed. Long pauses are cut short, and say how long they were.

    Examples:
      sidelight timeline 7d0c5f2e

      sidelight timeline 7d0c5f2e --svg timeline.svg
    """
    with Store(store) as opened:
        found = opened.timeline(artifact)
        if not found:
            known = [each.artifact_id for each in opened.artifacts(limit=1000)]
            close = difflib.get_close_matches(artifact, known, n=1)
            hint = f"did you mean {close[0]}?" if close else "see `sidelight artifacts`"
            complain(f"{opened.url} knows no artifact {artifact}; {hint}")
            raise typer.Exit(1)
    if as_json:
        print_json(found)
    elif svg is not None:
        drawn = Console(
            record=True,
            file=io.StringIO(),
            width=_SVG_COLUMNS,
            force_terminal=True,
            color_system="truecolor",
        )
        drawn.print(Picture(artifact, found))
        try:
            drawn.save_svg(str(svg), title=f"sidelight timeline {clean(artifact)}")
        except OSError as error:
            complain(f"cannot write {svg}: {error.strerror}; name another file")
            raise typer.Exit(1) from error
    else:
        console().print(Picture(artifact, found))


class By(StrEnum):
    """What counts can be summed by."""

    ORGANIZATION = "organization"
    TYPE = "type"
    DAY = "day"


def counts(
    *,
    store: StoreUrl = None,
    organization: OfOrganization = None,
    types: OfType = None,
    since: Annotated[
        str | None, typer.Option(metavar="DAY", help="The first day (UTC): 2026-07-25, or 7d ago.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="DAY", help="The last day (UTC).")] = None,
    by: Annotated[
        list[By] | None,
        typer.Option(help="Sum up by this alone. May be repeated. Without it, by all three."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Count events by organization, type and day.

    Examples:
      sidelight counts --since 7d --by day

      sidelight counts --organization northwind --by type
    """
    with Store(store) as opened:
        found = opened.counts(
            organization_id=organization, type=types or None, since=since, until=until
        )
        url = opened.url
    parts = [part for part in By if part in (by or By)]
    sums: Counter[tuple[object, ...]] = Counter()
    for each in found:
        sums[tuple(_part(each, part) for part in parts)] += each.count
    if as_json:
        names = ["organization_id" if part is By.ORGANIZATION else part.value for part in parts]
        print_json(
            {**dict(zip(names, key, strict=True)), "count": count} for key, count in sums.items()
        )
        return
    if not sums:
        remark(f"no such events in {url}")
        return
    rows = table(*(part.value for part in parts), "count", "", right=["count"])
    highest = max(sums.values())
    for key, count in sums.items():
        bar = "━" * max(1, round(count / highest * 24))
        shown = [named(None if name is None else str(name)) for name in key]
        rows.add_row(*shown, number(count), Text(bar, style="cyan"))
    console().print(rows)
    remark(f"{plural(sum(sums.values()), 'event')} in all")


def _part(count: Count, part: By) -> object:
    return {
        By.ORGANIZATION: count.organization_id,
        By.TYPE: count.type,
        By.DAY: count.day,
    }[part]


def budget(*, store: StoreUrl = None, as_json: AsJson = False) -> None:
    """Show what emitting has cost the callers of each point; the budget is 10 ms.

    Every emission is measured, from the start of its capture to the end of the copy and of an
    awaited wait, and counted in a histogram: the quantiles are upper bounds.

    Example:
      sidelight budget --json | jq 'select(.over_budget > 0)'
    """
    with Store(store) as opened:
        found = opened.costs()
        url = opened.url
    if as_json:
        print_json(found)
        return
    if not found:
        remark(f"nothing was measured yet in {url}")
        return
    numbers = ["count", "p50", "p99", "p99.9", "max", "over 10 ms"]
    rows = table("point", *numbers, right=numbers)
    for cost in found:
        spent = (cost.p50, cost.p99, cost.p999, cost.max)
        breaches = Text(number(cost.over_budget), style="bold red" if cost.over_budget else "dim")
        rows.add_row(named(cost.point), number(cost.count), *map(_cost, spent), breaches)
    console().print(rows)
    total, over = sum(cost.count for cost in found), sum(cost.over_budget for cost in found)
    share = f"{over / total:.3%} of them" if over else "none of them"
    remark(f"{plural(total, 'emission')}, {share} over the budget")


def _cost(ns: int) -> Text:
    style = "red" if ns > BUDGET_NS else "yellow" if ns > BUDGET_NS // 10 else ""
    return Text(duration(ns), style=style)


def tail(
    *,
    store: StoreUrl = None,
    artifact: OfArtifact = None,
    organization: OfOrganization = None,
    types: OfType = None,
    trace: OfTrace = None,
    last: Annotated[
        int, typer.Option("--last", "-n", min=0, help="Begin with so many that are there already.")
    ] = 10,
    as_json: AsJson = False,
) -> None:
    """Follow the events as they are stored, until Ctrl-C.

    Examples:
      sidelight tail --type transcription_failed

      sidelight tail -n 0 --json | jq --unbuffered .type
    """
    try:
        with Store(store) as opened:
            following = opened.follow(
                artifact_id=artifact,
                organization_id=organization,
                type=types or None,
                trace_id=trace,
                last=last,
            )
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
        (moment(event.occurred_at, today=datetime.now(UTC).date()), "dim"),
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
        line.append(f"  {duration(event.duration_ns)}", style="cyan")
    if event.attributes:
        line.append("  ")
        line.append(attributes(event))
    return line
