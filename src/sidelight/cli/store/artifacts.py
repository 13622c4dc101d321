"""`sidelight artifacts`: list artifacts."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from sidelight.cli.options import AsJson, OfOrganization, Since, StoreUrl, Until
from sidelight.cli.output import named, print_json, remark
from sidelight.cli.store.unknown import remark_unknown
from sidelight.cli.tables import print_table
from sidelight.store import Store, ago, moment, number


def artifacts(
    *,
    store: StoreUrl = None,
    organization: OfOrganization = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Show at most N.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List artifacts; the artifact with the latest event comes first.

    Examples:
      sidelight artifacts --organization northwind --since 1d
    """
    with Store(store) as opened:
        found = opened.artifacts(
            organization_id=organization, since=since, until=until, limit=limit
        )
        url = opened.url
        remark_unknown(opened, filters={"organization_id": organization})
    if as_json:
        print_json(found)
        return
    if not found:
        remark(f"{url} holds no such artifacts")
        return
    columns = {
        "artifact": [named(each.artifact_id) for each in found],
        "organization": [
            Text("several") if each.is_shared else named(each.organization_id) for each in found
        ],
        "events": [Text(number(each.events)) for each in found],
        "first event (UTC)": [Text(moment(each.first_event_at)) for each in found],
        "last event": [Text(ago(each.last_event_at)) for each in found],
    }
    print_table(columns, right=["events"], lead=["artifact", "organization"])
