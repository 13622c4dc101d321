"""`sidelight outbox`: create the outbox table of a business database, or show its backlog."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Final, TypeAlias

import typer

from sidelight.cli.options import AsJson
from sidelight.cli.output import complain, console, print_json, time_of
from sidelight.cli.spool.commands import as_command
from sidelight.settings import public_url
from sidelight.store import ago, plural
from sidelight.transactions import create_outbox, outbox_status

Url: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="URL",
        help="The URL of the business database: postgresql+psycopg://host/shop or "
        "sqlite:///shop.db. The driver does not matter.",
    ),
]

outbox: Final = typer.Typer(no_args_is_help=True, add_completion=False)


@outbox.callback()
def about() -> None:
    """Create the outbox table of a business database, or show the events that wait in it."""


@outbox.command()
def create(url: Url) -> None:
    """Create the table `sidelight_outbox` where it is missing.

    A SQLite database is also put into WAL mode, because a relay that reads does not block commits
    there. With Alembic, add the table to your metadata instead: sidelight.outbox.table(metadata).

    Examples:
      sidelight outbox create postgresql://localhost/shop
    """
    created = create_outbox(url)
    state = "created" if created else "exists already"
    console().print(f"sidelight_outbox in {public_url(url)}: {state}", soft_wrap=True)


@outbox.command()
def status(url: Url, *, as_json: AsJson = False) -> None:
    """Show how many events wait for a relay, and how old the oldest is.

    Examples:
      sidelight outbox status sqlite:///shop.db
    """
    found = outbox_status(url)
    if as_json:
        print_json([asdict(found)])
        return
    oldest = time_of(found.oldest_ns)
    since = "" if oldest is None else f", the oldest occurred {ago(oldest)}"
    console().print(f"{found.url}: {plural(found.waiting, 'event')} waiting{since}", soft_wrap=True)
    if found.moved:
        moved = plural(found.moved, "row")
        console().print(f"{moved} moved already; the next event that joins deletes them")
    if found.obstacle is not None:
        problem, remedy = found.obstacle.problem, found.obstacle.remedy
        complain(f"no relay with this URL moves events: {problem}; {remedy}")
    if found.journal_mode not in {None, "wal"}:
        complain(
            f"journal mode is {found.journal_mode}: a commit waits while a relay reads;"
            f" `{as_command('outbox', 'create', found.url)}` puts the database into WAL mode"
        )
