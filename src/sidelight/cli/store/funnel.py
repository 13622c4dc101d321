"""`sidelight funnel`: how many artifacts reach each step."""

from __future__ import annotations

from itertools import chain
from typing import Annotated, Final

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
from sidelight.cli.output import clean, print_json, remark, remark_left_out
from sidelight.cli.palette import AMBER, GREY
from sidelight.cli.spool.waiting import remark_waiting
from sidelight.cli.store.latency import remark_large
from sidelight.cli.store.unknown import remark_unknown
from sidelight.cli.tables import print_table
from sidelight.store import Funnel, Step, Store, duration, number

_SHOWN: Final = 3  # types of last events


@filtered
def funnel(
    steps: Annotated[
        list[str],
        typer.Argument(metavar="TYPE", help="The type of each step; TYPE,TYPE for one of several."),
    ],
    *,
    store: StoreUrl = None,
    filters: EventFilters,
    since: Since = None,
    until: Until = None,
    time_limit: TimeLimit = None,
    as_json: AsJson = False,
) -> None:
    """Show how many artifacts reach each step, in what time, and where the others stand.

    An artifact reaches a step with its first event of that type that is not earlier than its event
    of the step before. Filters and the range of time choose artifacts by the first step. "Stayed"
    counts artifacts that did not reach the next step, with the types of their last events.

    Examples:
      sidelight funnel received transcribed completed,failed --since 7d
    """
    types = [step.split(",") for step in steps]
    with Store(store) as opened:
        found = opened.funnel(
            types,
            since=since,
            until=until,
            time_limit=seconds_of(time_limit, as_json=as_json),
            **filters,
        )
        url = opened.url
        remark_unknown(opened, chain.from_iterable(types), filters)
    if as_json:
        print_json([found])
    elif found.steps[0].reached:
        _print(found)
    else:
        remark(f"{url} holds no such artifacts")
    remark_left_out("artifacts that began", found.left_out)
    remark_large(found.large)
    remark_waiting(store)


def _print(found: Funnel) -> None:
    steps, all_of_them = found.steps, found.steps[0].reached
    columns = {
        "step": [Text(_name(step), style="bold") for step in steps],
        "reached": [Text(number(step.reached)) for step in steps],
        "share": [Text(f"{step.reached / all_of_them:.1%}", style=GREY) for step in steps],
        "p50": [Text(duration(step.p50_ns)) for step in steps],
        "p90": [Text(duration(step.p90_ns)) for step in steps],
        "max": [Text(duration(step.max_ns)) for step in steps],
        "stayed": [Text(number(step.stayed) if step.stayed else "", style=AMBER) for step in steps],
        "last event": [Text(_last(step), style=GREY) for step in steps],
    }
    print_table(
        columns,
        right=["reached", "share", "p50", "p90", "max", "stayed"],
        prose="last event",
    )


def _name(step: Step) -> str:
    if len(step.types) == 1:
        return clean(step.types[0])
    return ", ".join(f"{clean(name)} {number(step.by_type.get(name, 0))}" for name in step.types)


def _last(step: Step) -> str:
    shown = [f"{clean(name)} {number(n)}" for name, n in [*step.last_types.items()][:_SHOWN]]
    return ", ".join([*shown, *(["…"] if len(step.last_types) > _SHOWN else [])])
