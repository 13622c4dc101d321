"""What the doctor says of the store: does it answer, does it take, what was lost on the way?"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from sidelight.cli.doctor.findings import Finding
from sidelight.cli.doctor.free_space import check_disk
from sidelight.cli.doctor.remedies import remedy_for
from sidelight.cli.output import ago, duration, plural
from sidelight.exceptions import StoreError, StoreMissingError, StoreVersionError
from sidelight.record import BUDGET_NS, CostSummary
from sidelight.settings import public_url, sqlite_path
from sidelight.store import Loss, Store, connect, metadata

_RECENT: Final = timedelta(days=1)
_LOCKED_FOR: Final = 2.0  # seconds that another's transaction may reasonably last
_AHEAD: Final = timedelta(minutes=1)  # by which clocks may differ
_TOO_MANY: Final = 0.0005  # of the emissions: what a busy machine does to any call
_FEW: Final = 3  # emissions: fewer may have been chance …
_CERTAIN: Final = 10  # … which so many were not


def check_store(url: str) -> Iterator[Finding]:
    """Is there a store, may it be written, and what was lost on the way to it?"""
    try:
        with Store(url) as store:
            yield from _contents(store)
            losses = store.losses()
            costs = store.costs(since=_RECENT)
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
    if (path := sqlite_path(url)) is not None:
        yield from check_disk(path.parent, "soon the store takes no more; all is kept in the spool")
    yield from _check_losses(losses)
    yield from _check_costs(costs)


def _remedy(error: StoreMissingError) -> str:
    return str(error.facts["remedy"])


def _contents(store: Store) -> Iterator[Finding]:
    latest = next(store.events(newest_first=True, limit=1), None)
    if latest is None:
        yield Finding("store", "ok", f"{store.url}: no events yet")
        return
    told = f"{plural(store.size(), 'event')}, the latest {ago(latest.occurred_at)}"
    yield Finding("store", "ok", f"{store.url}: {told}")
    if latest.occurred_at > datetime.now(UTC) + _AHEAD:
        yield Finding(
            "clock",
            "wrong",
            f"the latest event occurs {ago(latest.occurred_at)}: the clock of "
            f"{latest.point} was stepped, or is wrong",
            "see that the clocks are right; nothing is lost by it, but times are wrong",
        )


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
            remedy_for(reason),
        )


def _check_costs(costs: Sequence[CostSummary]) -> Iterator[Finding]:
    """How many emissions held their callers up for longer than they may?"""
    count, over = sum(cost.count for cost in costs), sum(cost.over_budget for cost in costs)
    if not count:
        return
    if over < _FEW or over <= _TOO_MANY * count:
        yield Finding("budget", "ok", f"{over} of {plural(count, 'emission')} took over 10 ms")
        return
    worst = max(costs, key=lambda cost: cost.over_budget)
    yield Finding(
        "budget",
        "wrong" if over >= _CERTAIN else "note",
        f"{over} of {plural(count, 'emission')} ({over / count:.2%}) took over "
        f"{duration(BUDGET_NS)}, most of them at {worst.point}, {duration(worst.max)} at the most",
        "`sidelight budget` shows each point; a machine that is short of processors does that to "
        "any call",
    )
