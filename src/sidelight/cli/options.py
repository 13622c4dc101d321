"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

if TYPE_CHECKING:
    from sidelight.store import Filters

StoreUrl: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URL",
        envvar="SIDELIGHT_STORE",
        help="Use this events store: sqlite:///events.db or postgresql://host/database. "
        "Default: the SQLite file in your state directory.",
    ),
]
AsJson: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print one JSON object per line, and nothing else.")
]
OfArtifact: TypeAlias = Annotated[
    str | None, typer.Option("--artifact", metavar="ID", help="Show only events of this artifact.")
]
OfOrganization: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--organization",
        metavar="ID",
        help='Show only this organization; "" means events without an organization.',
    ),
]
OfType: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--type", metavar="TYPE", help="Show only events of this type. Repeatable."),
]
OfTrace: TypeAlias = Annotated[
    str | None, typer.Option("--trace", metavar="ID", help="Show only events of this trace.")
]
Where: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="CONDITION",
        help="Show only events with this attribute: 'words>100', kind=mail. One of = != > >= < <=. "
        "Repeatable.",
    ),
]
OfPoint: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--point",
        metavar="PATH",
        help="Show only events of this function: package.module:Class.method. Repeatable.",
    ),
]
OfService: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--service",
        metavar="NAME",
        help="Show only events of this service (OTEL_SERVICE_NAME). Repeatable.",
    ),
]
OfHost: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--host", metavar="NAME", help="Show only events of this machine. Repeatable."),
]
OfOutcome: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--outcome",
        metavar="OUTCOME",
        help="Show only events with this outcome: started, succeeded, failed, closed, emitted, "
        "abandoned (the process ended before the call did). Repeatable.",
    ),
]
Failed: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--failed", help="Show only failures; short for --outcome failed --outcome abandoned."
    ),
]
TimeLimit: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--time-limit",
        metavar="SECONDS",
        min=0,
        help="Examine the latest events for this long; stderr says what was left out then. "
        "Default: 1 for a table, no limit with --json.",
    ),
]
Since: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="Start here: 15m, 2h, 7d (ago), 2026-07-25 or 2026-07-25T10:00:00Z (UTC).",
    ),
]
Until: TypeAlias = Annotated[
    str | None, typer.Option(metavar="TIME", help="End here; a day is included whole.")
]
Stream: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--stream",
        metavar="URL",
        envvar="SIDELIGHT_STREAM",
        help="Send events to this topic: kafka://host:9092,host:9092/topic.",
    ),
]
SpoolDirectory: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--spool",
        metavar="DIR",
        envvar="SIDELIGHT_SPOOL",
        help="Use this spool directory. Default: the directory that belongs to the store.",
    ),
]
Otlp: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--otlp",
        metavar="URL",
        help="Export to this OTLP endpoint (base URL). Default: OTEL_EXPORTER_OTLP_ENDPOINT.",
    ),
]
Outboxes: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--outbox",
        metavar="URL",
        help="Include the outbox of this business database. Repeatable. Default: the URLs in"
        " SIDELIGHT_OUTBOXES.",
    ),
]


def filters_of(
    organization: str | None,
    where: Sequence[str] | None,
    point: Sequence[str] | None,
    outcome: Sequence[str] | None,
    service: Sequence[str] | None,
    host: Sequence[str] | None,
    *,
    failed: bool,
) -> Filters:
    """Make filters of the options that the questions share."""
    outcomes = [*(outcome or ()), *(["failed", "abandoned"] if failed else ())]
    return {
        "organization_id": organization,
        "where": where or None,
        "point": point or None,
        "outcome": outcomes or None,
        "service": service or None,
        "host": host or None,
    }


def seconds_of(time_limit: float | None, *, as_json: bool) -> float | None:
    """The time that a question may take."""
    return time_limit if time_limit is not None or as_json else 1.0
