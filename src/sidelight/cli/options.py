"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

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
        envvar="SIDELIGHT_OUTBOXES",
        help="Include the outbox of this business database. Repeatable.",
    ),
]
