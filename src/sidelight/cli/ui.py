"""`sidelight ui`: look at a store in a browser."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from sidelight.cli.doctor.command import run_checks
from sidelight.cli.options import SpoolDirectory, StoreUrl
from sidelight.cli.output import remark
from sidelight.cli.spool.lag import lags_of
from sidelight.cli.spool.waiting import complain_of_no_directory, marks_here
from sidelight.cli.store.expected import (
    ExpectMap,
    ExpectModules,
    complain_of_unknown_types,
    expectations_of,
)
from sidelight.exceptions import ConfigurationError, QueryError
from sidelight.page import Lag
from sidelight.record import catalogue
from sidelight.settings import settle
from sidelight.store import Store


def ui(
    *,
    store: StoreUrl = None,
    spool: SpoolDirectory = None,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Listen here.")] = 8333,
    host: Annotated[
        str,
        typer.Option(
            "--host", metavar="ADDRESS", help="Listen for other machines, too; needs a token."
        ),
    ] = "127.0.0.1",
    token: Annotated[
        str | None,
        typer.Option(
            "--token",
            metavar="TEXT",
            envvar="SIDELIGHT_UI_TOKEN",
            help="Let only those in that know this token.",
        ),
    ] = None,
    map_: ExpectMap = None,
    modules: ExpectModules = None,
    trace_url: Annotated[
        str | None,
        typer.Option(
            "--trace-url",
            metavar="URL",
            help="Link traces: 'https://tracing.example/trace/{trace_id}'.",
        ),
    ] = None,
) -> None:
    """Show the store in a browser: what happens now, an artifact, the flow, points, health.

    What is overdue is judged by the [[expect]] of the map, and by the catalogue of the modules.
    The pages read only. They listen on this machine alone, unless --host and --token are given.
    Without TLS, a token is readable on its way: put a proxy with TLS in front, or use an SSH
    tunnel. Ctrl-C ends the command.

    Examples:
      sidelight ui --store sqlite:///events.db

      sidelight ui --trace-url 'http://localhost:16686/trace/{trace_id}'
    """
    try:
        from sidelight.page import Beside, Door, Health, serve  # noqa: PLC0415  # an extra
    except ImportError as error:
        raise ConfigurationError(
            setting="ui",
            problem=f"the library {error.name} is not installed",
            remedy="pip install 'sidelight[ui]'",
        ) from error
    if trace_url is not None and "{trace_id}" not in trace_url:
        raise QueryError(
            argument="--trace-url",
            problem=f"{trace_url!r} has no place for the trace's id",
            remedy="write {trace_id} where the id belongs",
        )
    settings = settle(store, spool=spool)
    complain_of_no_directory(spool)
    expected = expectations_of(map_, modules or [])

    def lags() -> Sequence[Lag] | None:
        try:
            return lags_of(settings.spool)
        except OSError:  # the doctor's findings name it
            return None

    with Store(store) as opened:
        complain_of_unknown_types(expected, (each.type for each in opened.types()))
        serve(
            opened,
            Door(host=host, port=port, token=token),
            Beside(
                health=lambda: [
                    Health(found.check, found.state, found.message, found.remedy)
                    for found in run_checks(settings)
                ],
                lags=lags,
                waiting=lambda: marks_here(store, opened.processes(running=True), spool),
                expectations=expected.expectations,
                declared=list(catalogue) if modules else [],
                trace_url=trace_url,
            ),
            ready=lambda address: remark(f"open {address} (Ctrl-C ends)"),
        )
