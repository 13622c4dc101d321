"""`sidelight counts`: count events by organization, type and day."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from operator import attrgetter
from typing import Annotated, Final

import typer
from rich.text import Text

from sidelight.cli.options import (
    AsJson,
    EventFilters,
    OfArtifact,
    OfType,
    StoreUrl,
    TimeLimit,
    filtered,
    seconds_of,
)
from sidelight.cli.output import (
    console,
    named,
    print_json,
    remark,
    remark_left_out,
)
from sidelight.cli.palette import CYAN
from sidelight.cli.spool.waiting import remark_waiting
from sidelight.cli.store.unknown import remark_unknown, require_artifact
from sidelight.cli.tables import print_table, width_of
from sidelight.store import Store, number, plural

_LONGEST_BAR: Final = 24  # columns of the terminal
_SHORTEST_BAR: Final = 6


class By(StrEnum):
    """The parts that events are counted by."""

    ORGANIZATION = "organization"
    TYPE = "type"
    DAY = "day"


_KEYS: Final = {By.ORGANIZATION: "organization_id", By.TYPE: "type", By.DAY: "day"}


@filtered
def counts(
    *,
    store: StoreUrl = None,
    types: OfType = None,
    artifact: OfArtifact = None,
    filters: EventFilters,
    since: Annotated[
        str | None,
        typer.Option(metavar="DAY", help="Start with this day (UTC): 2026-07-25, or 7d (ago)."),
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="DAY", help="End with this day (UTC).")
    ] = None,
    by: Annotated[
        list[By] | None,
        typer.Option(help="Add up by this only. Repeatable. Default: by all three."),
    ] = None,
    time_limit: TimeLimit = None,
    as_json: AsJson = False,
) -> None:
    """Count events by organization, type and day.

    The rows are sorted by organization, then by type, then by day. Events without an organization
    come first.

    Counters tell these numbers at once. With another filter than organization and type, the events
    themselves are counted, and those of pruned days are missing.

    Examples:
      sidelight counts --since 7d --by day

      sidelight counts --organization northwind --by type

      sidelight counts --failed --since 7d --by type
    """
    with Store(store) as opened:
        require_artifact(opened, store, artifact)
        found = opened.counts(
            artifact_id=artifact,
            type=types or None,
            since=since,
            until=until,
            time_limit=seconds_of(time_limit, as_json=as_json),
            **filters,
        )
        url = opened.url
        remark_unknown(opened, {*(types or ())}.difference(each.type for each in found), filters)
    parts = [part for part in By if part in (by or By)]
    sums: Counter[tuple[object, ...]] = Counter()
    for each in found:
        sums[tuple(attrgetter(_KEYS[part])(each) for part in parts)] += each.count
    rows = sorted(sums.items(), key=lambda row: [str(part or "") for part in row[0]])
    if as_json:
        names = [_KEYS[part] for part in parts]
        print_json({**dict(zip(names, key, strict=True)), "count": count} for key, count in rows)
    elif rows:
        _print(parts, rows)
        remark(f"{plural(sum(sums.values()), 'event')} in total")
    else:
        remark(f"{url} holds no such events")
    remark_left_out("events", found.left_out)
    remark_waiting(store)


def _print(parts: list[By], rows: list[tuple[tuple[object, ...], int]]) -> None:
    """Print a table; the bars take the room that names and numbers leave."""
    columns = {
        part.value: [named(None if key[at] is None else str(key[at])) for key, _ in rows]
        for at, part in enumerate(parts)
    }
    columns["count"] = [Text(number(count)) for _, count in rows]
    room = min(_LONGEST_BAR, console().width - width_of(columns) - 3)
    if room >= _SHORTEST_BAR:
        highest = max(count for _, count in rows)
        columns[""] = [
            Text("━" * max(1, round(count / highest * room)), style=CYAN) for _, count in rows
        ]
    print_table(columns, right=["count"], lead=[parts[0].value], grouped=len(parts) > 1)
