"""Options that several commands share."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

if TYPE_CHECKING:
    from sidelight.store import Filters

    EventFilters: TypeAlias = Filters
else:
    EventFilters = dict  # typer evaluates annotations, and not every command needs the store

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
    str | None, typer.Option("--artifact", metavar="ID", help="Take only events of this artifact.")
]
OfOrganization: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--organization",
        metavar="ID",
        help='Take only this organization; "" means events without an organization.',
    ),
]
OfType: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--type", metavar="TYPE", help="Take only events of this type. Repeatable."),
]
OfTrace: TypeAlias = Annotated[
    str | None, typer.Option("--trace", metavar="ID", help="Take only events of this trace.")
]
Where: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="CONDITION",
        help="Take only events with this attribute: 'words>100', kind=mail. One of = != > >= < <=. "
        "Repeatable.",
    ),
]
OfPoint: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--point",
        metavar="PATH",
        help="Take only events of this function: package.module:Class.method. Repeatable.",
    ),
]
OfService: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--service",
        metavar="NAME",
        help="Take only events of this service (OTEL_SERVICE_NAME). Repeatable.",
    ),
]
OfHost: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--host", metavar="NAME", help="Take only events of this machine. Repeatable."),
]
OfOutcome: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--outcome",
        metavar="OUTCOME",
        help="Take only events with this outcome: started, succeeded, failed, emitted, "
        "abandoned (the process ended before the call did). Repeatable.",
    ),
]
Failed: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--failed", help="Take only failures; short for --outcome failed --outcome abandoned."
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


def filtered(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that choose events, in the place of its argument ``filters``."""
    shared = inspect.signature(_filters, eval_str=True).parameters
    own = inspect.signature(command, eval_str=True)

    @functools.wraps(command)
    def run(**given: Any) -> None:
        chosen = {name: given.pop(name) for name in shared}
        command(**given, filters=_filters(**chosen))

    parameters = [
        each
        for parameter in own.parameters.values()
        for each in (shared.values() if parameter.name == "filters" else [parameter])
    ]
    run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


def _filters(
    *,
    organization: OfOrganization = None,
    where: Where = None,
    point: OfPoint = None,
    outcome: OfOutcome = None,
    failed: Failed = False,
    service: OfService = None,
    host: OfHost = None,
) -> EventFilters:
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
    """Return the time that a question may take."""
    return time_limit if time_limit is not None or as_json else 1.0
