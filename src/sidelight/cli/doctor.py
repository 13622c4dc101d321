"""`sidelight doctor`: what is wrong, in words."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Final

import typer
from rich.table import Table
from rich.text import Text
from sqlalchemy.exc import SQLAlchemyError

from sidelight.cli.backlog import check_spool
from sidelight.cli.findings import Finding
from sidelight.cli.options import AsJson, Otlp, SpoolDirectory, StoreUrl
from sidelight.cli.output import ago, clean, console, plural, print_json
from sidelight.exceptions import StoreError, StoreMissingError, StoreVersionError
from sidelight.schema import connect, metadata
from sidelight.settings import Settings, public_url, settle, sqlite_path
from sidelight.store import Loss, Store

_LOOKS: Final = {"ok": ("✓", "green"), "note": ("!", "yellow"), "wrong": ("✗", "red")}
_RECENT: Final = timedelta(days=1)
_LOCKED_FOR: Final = 2.0  # seconds that another's transaction may reasonably last


def doctor(
    *,
    store: StoreUrl = None,
    spool: SpoolDirectory = None,
    otlp: Otlp = None,
    as_json: AsJson = False,
) -> None:
    """Look for what is wrong with store, spool, relay and collector, and say what helps.

    Ends with 1 where something is wrong. Give it the environment that your program has.

    Example:
      sidelight doctor --store sqlite:///events.db --otlp http://localhost:4318
    """
    settings = settle(store, spool=spool, otlp=otlp)
    found = list(examine(settings))
    if as_json:
        print_json(found)
    else:
        _print(found)
    if any(finding.state == "wrong" for finding in found):
        raise typer.Exit(1)


def examine(settings: Settings) -> Iterator[Finding]:
    """Look at everything, one thing after the other."""
    from sidelight.cli.endpoint import check_endpoints  # noqa: PLC0415  # the exporters: slow

    yield from _check_switches()
    yield from _check_store(settings.store)
    yield from check_spool(settings.spool)
    yield from check_endpoints(settings)


def _check_switches() -> Iterator[Finding]:
    if os.environ.get("SIDELIGHT_DISABLED", "") not in {"", "0"}:
        yield Finding(
            "switches", "note", "SIDELIGHT_DISABLED is set: nothing is emitted", "unset it"
        )


def _check_store(url: str) -> Iterator[Finding]:
    try:
        with Store(url) as store:
            yield _contents(store)
            losses = store.losses()
    except StoreMissingError as error:
        yield Finding("store", "wrong", f"there is none at {public_url(url)}", _remedy(error))
        return
    except StoreVersionError as error:
        yield Finding(
            "store",
            "wrong",
            f"{public_url(url)} has schema version {error.facts['found']}, "
            f"this sidelight knows {error.facts['known']}",
            "upgrade sidelight, or name another store",
        )
        return
    except StoreError as error:
        yield Finding(
            "store",
            "wrong",
            f"{public_url(url)}: {error.facts['problem']}",
            "see that the database runs, and that no other program keeps it locked",
        )
        return
    yield from _check_writable(url)
    yield from _check_losses(losses)


def _remedy(error: StoreMissingError) -> str:
    return str(error.facts["remedy"])


def _contents(store: Store) -> Finding:
    latest = next(store.events(newest_first=True, limit=1), None)
    if latest is None:
        return Finding("store", "ok", f"{store.url}: no events yet")
    told = f"{plural(store.size(), 'event')}, the latest {ago(latest.occurred_at)}"
    return Finding("store", "ok", f"{store.url}: {told}")


def _check_writable(url: str) -> Iterator[Finding]:
    """Can a relay write? Asked for as long as another's transaction may last."""
    path = sqlite_path(url)
    if path is None:
        if (problem := _unwritable(url)) is not None:
            yield Finding(
                "store",
                "wrong",
                f"{public_url(url)} cannot be written: {problem}",
                "relay to the primary server, as a user who may write the schema sidelight;"
                " until then all is kept in the spool",
            )
        return
    for each in (path, path.parent):
        if not os.access(each, os.W_OK):
            yield Finding(
                "store", "wrong", f"{each} is not writable", "give the right to whom relays into it"
            )
            return
    until = time.monotonic() + _LOCKED_FOR
    while (problem := _unwritable(url)) is not None:
        if time.monotonic() > until:
            yield Finding(
                "store",
                "wrong",
                f"{public_url(url)} cannot be written: {problem}",
                "find the program that keeps a transaction open on it "
                f"(fuser {path}); until then all is kept in the spool",
            )
            return
        time.sleep(0.1)


def _unwritable(url: str) -> str | None:
    """Why a relay's transaction cannot begin or write; None where it can."""
    try:
        engine = connect(url, create=False)
    except StoreError as error:
        return str(error.facts["problem"])
    try:
        with engine.connect() as connection:
            transaction = connection.begin()
            if connection.dialect.name == "postgresql":
                for table in metadata.tables:
                    connection.exec_driver_sql(f"LOCK TABLE {table} IN ROW EXCLUSIVE MODE NOWAIT")
            transaction.rollback()
    except SQLAlchemyError as error:
        return " ".join(str(getattr(error, "orig", None) or error).split())
    finally:
        engine.dispose()
    return None


def _check_losses(losses: Sequence[Loss]) -> Iterator[Finding]:
    recent = datetime.now(UTC) - _RECENT
    if not losses:
        yield Finding("losses", "ok", "none")
    for reason, each in groupby(losses, lambda loss: loss.reason):
        together = list(each)
        latest = together[0]
        count = sum(loss.count for loss in together)
        yield Finding(
            "losses",
            "wrong" if latest.last_at > recent else "note",
            f"{reason}: {plural(count, 'time')} in "
            f"{plural(len(together), 'process', 'processes')}, reported {ago(latest.last_at)}: "
            f"{latest.problem}",
            _LOSS_REMEDIES.get(reason, ""),
        )


_LOSS_REMEDIES: Final = {
    "no room in the spool": "free the disk, raise spool_limit, or bring back the sink that failed",
    "attributes too large": "capture less: a record holds 256 KiB",
}


def _print(found: Sequence[Finding]) -> None:
    out = console()
    rows = Table.grid(padding=(0, 1, 0, 0))
    rows.add_column(no_wrap=True)
    rows.add_column(no_wrap=True, style="bold")
    rows.add_column(overflow="fold")
    for finding in found:
        symbol, colour = _LOOKS[finding.state]
        message = Text(clean(finding.message))
        if finding.remedy and finding.state != "ok":
            message.append(f"\n→ {clean(finding.remedy)}", style=colour)
        rows.add_row(Text(symbol, style=colour), finding.check, message)
    out.print(rows)
    wrong = sum(finding.state == "wrong" for finding in found)
    verdict = Text("all is well", style="green")
    if wrong:
        verdict = Text(f"{plural(wrong, 'thing is', 'things are')} wrong", style="bold red")
    out.print()
    out.print(verdict)
