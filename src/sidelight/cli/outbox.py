"""`sidelight outbox`: the table in a business database where events wait for a relay."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Final, TypeAlias

import typer

from sidelight.cli.options import AsJson
from sidelight.cli.output import ago, complain, console, plural, print_json, time_of
from sidelight.settings import public_url
from sidelight.transactions import create_outbox, outbox_status

Url: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="URL",
        help="The business database, as your application names it: "
        "postgresql+psycopg://host/shop or sqlite:///shop.db.",
    ),
]

outbox: Final = typer.Typer(no_args_is_help=True, add_completion=False)


@outbox.callback()
def about() -> None:
    """Make the outbox of a business database, or see what waits in it."""


@outbox.command()
def create(url: Url) -> None:
    """Make the table `sidelight_outbox`, where it is missing; that is all.

    A SQLite database is put into WAL mode as well: there a relay's reading holds up nobody. With
    Alembic, put the table into your metadata instead: sidelight.outbox.table(metadata).

    Examples:
      sidelight outbox create postgresql://localhost/shop
    """
    made = create_outbox(url)
    told = "made" if made else "was there"
    console().print(f"sidelight_outbox in {public_url(url)}: {told}", soft_wrap=True)


@outbox.command()
def status(url: Url, *, as_json: AsJson = False) -> None:
    """Say how many events wait for a relay, and for how long.

    Examples:
      sidelight outbox status sqlite:///shop.db
    """
    found = outbox_status(url)
    if as_json:
        print_json([asdict(found)])
        return
    oldest = time_of(found.oldest_ns)
    since = "" if oldest is None else f", the oldest of {ago(oldest)}"
    console().print(f"{found.url}: {plural(found.waiting, 'event')} waiting{since}", soft_wrap=True)
    if found.moved:
        moved = plural(found.moved, "row")
        console().print(f"{moved} moved already; the next event that joins deletes them")
    if found.journal_mode not in {None, "wal"}:
        complain(
            f"journal mode is {found.journal_mode}: while a relay reads, a commit has to wait;"
            " `sidelight outbox create` puts the database into WAL mode"
        )
