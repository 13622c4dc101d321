"""The options that several commands have."""

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
        help="The events store: sqlite:///events.db or postgresql://host/database. "
        "Without it, the file in your state directory.",
    ),
]
AsJson: TypeAlias = Annotated[
    bool, typer.Option("--json", help="One JSON object per line, and nothing else.")
]
OfArtifact: TypeAlias = Annotated[
    str | None, typer.Option("--artifact", metavar="ID", help="Only those about this artifact.")
]
OfOrganization: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--organization", metavar="ID", help="Only this organization's; \"\" for nobody's."
    ),
]
OfType: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--type", metavar="TYPE", help="Only those of this type. May be repeated."),
]
OfTrace: TypeAlias = Annotated[
    str | None, typer.Option("--trace", metavar="ID", help="Only those of this trace.")
]
Since: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="From then on: 15m, 2h, 7d (ago), 2026-07-25 or 2026-07-25T10:00:00Z (UTC).",
    ),
]
Until: TypeAlias = Annotated[
    str | None, typer.Option(metavar="TIME", help="Before then; of a day, all of it.")
]
SpoolDirectory: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--spool",
        metavar="DIR",
        envvar="SIDELIGHT_SPOOL",
        help="The spool's directory. Without it, the one that belongs to the store.",
    ),
]
Otlp: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--otlp",
        metavar="URL",
        help="Base URL of an OTLP endpoint. Without it, as OTEL_EXPORTER_OTLP_ENDPOINT says.",
    ),
]
