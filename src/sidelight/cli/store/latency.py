"""`sidelight latency`: how long artifacts take from one event to another."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from rich.text import Text

from sidelight.cli.options import (
    AsJson,
    EventFilters,
    Since,
    StoreUrl,
    TimeLimit,
    Until,
    filtered,
    seconds_of,
)
from sidelight.cli.output import named, print_json, remark, remark_left_out
from sidelight.cli.palette import AMBER, GREY
from sidelight.cli.spool.waiting import remark_waiting
from sidelight.cli.store.unknown import remark_unknown
from sidelight.cli.tables import print_table
from sidelight.store import Latencies, Store, ago, duration, number, plural


class Grouping(StrEnum):
    """The parts that latencies are grouped by."""

    ORGANIZATION = "organization"
    DAY = "day"
    POINT = "point"


@filtered
def latency(
    start: Annotated[
        str,
        typer.Argument(
            metavar="START", help="The type of the first event; TYPE,TYPE for one of several."
        ),
    ],
    end: Annotated[
        str,
        typer.Argument(
            metavar="END", help="The type of the second event; TYPE,TYPE for one of several."
        ),
    ],
    *,
    store: StoreUrl = None,
    by: Annotated[
        list[Grouping] | None,
        typer.Option(help="Group by this, as the first event has it. Repeatable."),
    ] = None,
    filters: EventFilters,
    since: Since = None,
    until: Until = None,
    time_limit: TimeLimit = None,
    as_json: AsJson = False,
) -> None:
    """Show how long artifacts take from one event to another, and how many still wait.

    Each artifact counts once: from its first event of the type START to its first event of the type
    END that is not earlier. Filters and the range of time choose artifacts by that first event.
    Percentiles know nothing of the artifacts that still wait; the columns beside them do.

    Examples:
      sidelight latency received completed --since 7d --by organization

      sidelight latency received completed,failed --by day
    """
    starts, ends = start.split(","), end.split(",")
    with Store(store) as opened:
        found = opened.latency(
            starts,
            ends,
            by=[each.value for each in by or ()],
            since=since,
            until=until,
            time_limit=seconds_of(time_limit, as_json=as_json),
            **filters,
        )
        url = opened.url
        remark_unknown(opened, [*starts, *ends], filters)
    if as_json:
        print_json(found)
    elif any(each.arrived or each.waiting for each in found):
        _print(found, [each for each in Grouping if each in (by or ())])
    else:
        remark(f"{url} holds no such artifacts")
    remark_left_out("artifacts that began", found.left_out)
    remark_large(found.large)
    remark_waiting(store)


def remark_large(large: int) -> None:
    """Tell on stderr how many artifacts an answer left out because of their many events."""
    if large:
        remark(f"{plural(large, 'artifact')} with more than 10,000 events left out")


def _print(found: Latencies, by: list[Grouping]) -> None:
    keys = {
        Grouping.ORGANIZATION: [named(each.organization_id) for each in found],
        Grouping.DAY: [Text(str(each.day)) for each in found],
        Grouping.POINT: [named(each.point) for each in found],
    }
    columns = {
        **{part.value: keys[part] for part in by},
        "arrived": [Text(number(each.arrived)) for each in found],
        "p50": [Text(duration(each.p50_ns)) for each in found],
        "p90": [Text(duration(each.p90_ns)) for each in found],
        "p99": [Text(duration(each.p99_ns)) for each in found],
        "max": [Text(duration(each.max_ns)) for each in found],
        "waiting": [
            Text(number(each.waiting), style=AMBER if each.waiting else GREY) for each in found
        ],
        "the oldest": [
            Text("" if each.waiting_since is None else ago(each.waiting_since)) for each in found
        ],
    }
    right = ["arrived", "p50", "p90", "p99", "max", "waiting"]
    print_table(columns, right=right, lead=[part.value for part in by], grouped=bool(by))
