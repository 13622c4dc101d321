"""`sidelight budget`: what emissions cost the callers of each point."""

from __future__ import annotations

from rich.text import Text

from sidelight.cli.options import AsJson, StoreUrl
from sidelight.cli.output import named, print_json, remark
from sidelight.cli.palette import AMBER, GREY, RED
from sidelight.cli.tables import print_table
from sidelight.record import BUDGET_NS
from sidelight.store import Store, duration, number, plural


def budget(*, store: StoreUrl = None, as_json: AsJson = False) -> None:
    """Show what emissions cost the callers of each point. The budget is 10 ms per emission.

    Every emission is measured: from the start of the capture to the end of the copy, and to the end
    of an awaited wait. The times are counted in a histogram, so that quantiles are upper bounds.
    A point without an emission is listed too, if its process has emitted something.

    Examples:
      sidelight budget --json | jq 'select(.over_budget > 0)'
    """
    with Store(store) as opened:
        found = opened.costs()
        url = opened.url
    if as_json:
        print_json(found)
        return
    if not found:
        remark(f"{url} holds no measurements yet")
        return
    columns = {
        "point": [named(cost.point) for cost in found],
        "count": [Text(number(cost.count)) for cost in found],
        "p50": [_cost(cost.p50) if cost.count else Text("no emission") for cost in found],
        "p99": [_cost(cost.p99) for cost in found],
        "p99.9": [_cost(cost.p999) for cost in found],
        "max": [_cost(cost.max) for cost in found],
        "over 10 ms": [
            Text(number(cost.over_budget), style=f"bold {RED}" if cost.over_budget else GREY)
            for cost in found
        ],
    }
    print_table(columns, right=[*columns][1:], lead=["point"])
    total, over = sum(cost.count for cost in found), sum(cost.over_budget for cost in found)
    share = f"{number(over)} ({over / total:.3%})" if over else "none"
    remark(f"{plural(total, 'emission')}, {share} over the budget")


def _cost(ns: int) -> Text:
    if not ns:
        return Text()
    style = RED if ns > BUDGET_NS else AMBER if ns > BUDGET_NS // 10 else ""
    return Text(duration(ns), style=style)
