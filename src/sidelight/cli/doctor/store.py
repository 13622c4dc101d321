"""Check the store: does it answer, can it be written, which losses and costs does it hold?"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from sidelight.cli.doctor.directory import check_disk
from sidelight.cli.doctor.findings import Finding, is_set_aside, remedy_for
from sidelight.cli.spool.waiting import missing_beside_spool
from sidelight.exceptions import StoreError, StoreMissingError, StoreVersionError, in_one_line
from sidelight.host import host_name, monotonic
from sidelight.record import BUDGET_NS, CostSummary
from sidelight.settings import Settings, public_url, sqlite_path
from sidelight.store import (
    UNREADABLE,
    Loss,
    Process,
    Store,
    ago,
    compare_counters,
    connect,
    duration,
    metadata,
    plural,
)

_REMEDIES: Final = {
    "malformed|file is not a database|has cut its file": "put a sound copy in its place, and remove"
    " the -wal and -shm files of the one before; the records wait in the spool",
    "no such (table|column)|(relation|column) .* does not exist": "put back what another program"
    " has dropped or renamed, from a copy; a relay makes tables in an empty database only, and the"
    " records wait in the spool",
    'database ".*" does not exist': "create it with `createdb NAME`, or correct the URL",
    'role ".*" does not exist|authentication failed|no password supplied': "correct the user and"
    " the password in the URL, or in PGUSER and PGPASSWORD",
    "is full|No space left on device": "make room on the disk of the database; the records stay in"
    " the spool",
    "disk I/O error": "make room on the disk of the database; where it has room, read the system's"
    " log, and where the -wal or -shm file was removed, end the programs that have the database"
    " open; the records stay in the spool",
    "Permission denied": "run the command as a user who may read it",
}
"""By a pattern of the problem, in the words of a database."""
_LATEST: Final = 1000  # events and artifacts that are read
_RECENT: Final = timedelta(days=1)
_WANTED: Final = "erased"  # what `sidelight erase` is to do with events that come later
_LOCKED_FOR: Final = 2.0  # seconds that the transaction of another program may last
_AHEAD: Final = timedelta(minutes=1)  # by which clocks may differ
_TOO_MANY: Final = 0.0005  # of the emissions: more than a busy machine does to any call
_FEW: Final = 3  # emissions: fewer may be chance
_CERTAIN: Final = 10  # emissions: as many are no chance


def check_store(settings: Settings, quarantined: Collection[str]) -> Iterator[Finding]:
    """Check that the store exists and can be written; report its losses and costs.

    Args:
        settings: name the store, and the spool whose records make a missing one.
        quarantined: the reasons of the entries in the quarantine of this machine; "" where they
            cannot be read.
    """
    url = settings.require_store()
    try:
        with Store(url) as store:
            yield from _content(store)
            yield from _check_encoding(store)
            yield from _check_artifacts(store)
            losses = store.losses()
            known = store.processes() if losses else ()
            here = {each.process for each in known if each.host == host_name()}
            costs = store.costs(since=_RECENT)
            yield from _check_rows(store)
            yield from _check_counters(store)
    except StoreError as error:
        if isinstance(error, StoreMissingError):
            error = missing_beside_spool(error, settings.spool)
        yield _unavailable(public_url(url), error)
        return
    yield from _check_writable(url)
    if (path := sqlite_path(url)) is not None:
        threat = "soon the store takes no more; the records stay in the spool"
        yield from check_disk(path.parent, threat)
    yield from _check_losses(losses, here, quarantined)
    yield from _check_costs(costs)
    yield from _check_points(costs)


def running_in(url: str) -> list[Process]:
    """Return the processes whose end a store does not know; none where it does not answer."""
    with contextlib.suppress(StoreError), Store(url) as store:
        return store.processes(running=True)
    return []


def _unavailable(url: str, error: StoreError) -> Finding:
    facts = error.facts
    if isinstance(error, StoreMissingError):
        return Finding("store", "wrong", f"there is no store at {url}", str(facts["remedy"]))
    if isinstance(error, StoreVersionError):
        return Finding(
            "store",
            "wrong",
            f"{url} has schema version {facts['found']}, this sidelight knows {facts['known']}",
            "upgrade sidelight, or name another store",
        )
    problem = in_one_line(facts["problem"])
    usual = "start the database, and end the program that keeps it locked"
    return Finding("store", "wrong", f"{url}: {problem}", _remedy(problem) or usual)


def _remedy(problem: str) -> str:
    """Return what helps against a problem in a database's words; "" where it is not known."""
    found = (remedy for words, remedy in _REMEDIES.items() if re.search(words, problem))
    return next(found, "")


def _content(store: Store) -> Iterator[Finding]:
    latest = next(store.events(newest_first=True, limit=1), None)
    if latest is None:
        yield Finding("store", "ok", f"{store.url}: no events yet")
        return
    holds = f"{plural(store.size(), 'event')}, the latest {ago(latest.occurred_at)}"
    yield Finding("store", "ok", f"{store.url}: {holds}")
    if latest.occurred_at > datetime.now(UTC) + _AHEAD:
        yield Finding(
            "clock",
            "wrong",
            f"the latest event occurs {ago(latest.occurred_at)}: the clock of "
            f"{latest.point} was stepped, or is wrong",
            "correct the clocks; no event is lost, but times are wrong",
        )


def _check_encoding(store: Store) -> Iterator[Finding]:
    if (encoding := store.encoding()) not in {"UTF8", "SQL_ASCII"}:  # which holds any bytes
        yield Finding(
            "store",
            "wrong",
            f"{store.url} has the encoding {encoding}: events with other characters are refused",
            "move the store to a database with ENCODING 'UTF8'",
        )


def _check_artifacts(store: Store) -> Iterator[Finding]:
    """Find artifact ids that several organizations use: their events count as one artifact's."""
    if ids := store.shared_artifacts():
        some = ", ".join(ids[:3]) + (", …" if len(ids) > 3 else "")
        yield Finding(
            "artifacts",
            "wrong",
            f"{plural(len(ids), 'artifact id')} used by several organizations ({some}): one "
            "timeline shows the events of all, and an event without an organization belongs to "
            "none of them for certain",
            'make ids unique, for example by a prefix ("order:1"), and name the organization',
        )


def _check_rows(store: Store) -> Iterator[Finding]:
    """Find rows that no relay has written: the latest events, and what the other checks read."""
    store.counts()
    store.artifacts(limit=_LATEST)
    latest = store.events(newest_first=True, limit=_LATEST)
    found = store.unreadable.copy()
    found["events"] = sum(UNREADABLE in each.attributes for each in latest)
    if found := +found:
        tables = ", ".join(f"{count} in {table}" for table, count in sorted(found.items()))
        yield Finding(
            "store",
            "wrong",
            f"{plural(sum(found.values()), 'row')} cannot be read, because no relay writes such "
            f"rows ({tables})",
            "`sidelight events --json` shows what is wrong with an event; correct or delete the "
            "rows, and find the program that writes them",
        )


def _check_counters(store: Store) -> Iterator[Finding]:
    """Compare the counters with the events; what other programs delete stays counted."""
    found = compare_counters(store)
    if not (found.events or found.missing):
        return
    scope = "the only event" if found.events == 1 else f"all {plural(found.events, 'event')}"
    if found.since:
        scope = (
            f"{plural(found.events, 'event')} since {found.since}, and one of each of the"
            f" {plural(found.earlier, 'day')} before"
        )
    if found.missing:
        yield Finding(
            "counters",
            "wrong",
            f"{plural(found.missing, 'event')} that "
            f"{'was' if found.missing == 1 else 'were'} counted "
            f"{'is' if found.missing == 1 else 'are'} no longer there (compared: {scope})",
            "find what deletes rows of the store (a program, a trigger, a partition that was "
            "detached), and put them back from a copy; `sidelight prune` and `sidelight erase` "
            "delete without this",
        )
    if found.uncounted:
        yield Finding(
            "counters",
            "wrong",
            f"{plural(found.uncounted, 'event')} of the store in no counter (compared: {scope})",
            "find the program or the trigger that changes event_counts, or inserts events; put the "
            "counters back from a copy",
        )
    if not (found.missing or found.uncounted):
        yield Finding("counters", "ok", f"as many events as were counted (compared: {scope})")


def _check_writable(url: str) -> Iterator[Finding]:
    """Check that a relay can write; wait as long as the transaction of another may last."""
    path = sqlite_path(url)
    if path is None:
        if (problem := _write_problem(url)) is not None:
            yield Finding(
                "store",
                "wrong",
                f"{public_url(url)} cannot be written: {problem}",
                _remedy(problem)
                or "relay to the primary server, as a user who may write the schema sidelight;"
                " until then the records stay in the spool",
            )
        return
    for each in (path, path.parent):
        if not os.access(each, os.W_OK):
            yield Finding(
                "store", "wrong", f"{each} is not writable", "let the relay's user write there"
            )
            return
    until = monotonic() + _LOCKED_FOR
    while (problem := _write_problem(url)) is not None:
        if monotonic() > until:
            yield Finding(
                "store",
                "wrong",
                f"{public_url(url)} cannot be written: {problem}",
                _remedy(problem)
                or "find the program that keeps a transaction open on it "
                f"(fuser {path}); until then the records stay in the spool",
            )
            return
        time.sleep(0.1)


def _write_problem(url: str) -> str | None:
    """Return why the transaction of a relay cannot begin or write; None where it can."""
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
        return in_one_line(getattr(error, "orig", None) or error)
    finally:
        engine.dispose()
    return None


def _check_losses(
    losses: Sequence[Loss], here: Collection[str], quarantined: Collection[str]
) -> Iterator[Finding]:
    """Report losses; those of today are wrong, unless they are settled or wanted.

    Args:
        losses: of all processes, sorted by reason.
        here: the processes of this machine.
        quarantined: the reasons of the entries in its quarantine.
    """
    recent = datetime.now(UTC) - _RECENT
    if not losses:
        yield Finding("losses", "ok", "none")
    for reason, each in groupby(losses, lambda loss: loss.reason):
        together = list(each)
        latest = together[0]
        count = sum(loss.count for loss in together)
        new = [loss for loss in together if loss.last_at > recent]
        told = (
            f"{reason}: {plural(count, 'time')} in "
            f"{plural(len(together), 'process', 'processes')}, reported {ago(latest.last_at)}: "
            f"{latest.problem}"
        )
        remedy = remedy_for(reason)
        is_settled = is_set_aside(reason) and not {reason, ""} & set(quarantined)
        if is_settled and all(loss.process in here for loss in new):
            told += "; the quarantine holds none of them any more"
            remedy, new = "", []
        is_wrong = bool(new) and reason != _WANTED
        yield Finding("losses", "wrong" if is_wrong else "note", told, remedy)


def _check_costs(costs: Sequence[CostSummary]) -> Iterator[Finding]:
    """Compare the share of emissions over the budget with what a busy machine does to any call."""
    count, over = sum(cost.count for cost in costs), sum(cost.over_budget for cost in costs)
    if not count:
        return
    if over < _FEW or over <= _TOO_MANY * count:
        chance = f" (fewer than {_FEW} may be chance)" if 0 < over < _FEW else ""
        told = f"{over} of {plural(count, 'emission')} took over 10 ms{chance}"
        yield Finding("budget", "ok", told)
        return
    worst = max(costs, key=lambda cost: cost.over_budget)
    yield Finding(
        "budget",
        "wrong" if over >= _CERTAIN else "note",
        f"{over} of {plural(count, 'emission')} ({over / count:.2%}) took over "
        f"{duration(BUDGET_NS)}, most of them at {worst.point}, {duration(worst.max)} at the most",
        "`sidelight budget` shows each point; a machine that is short of processors delays any "
        "call",
    )


def _check_points(costs: Sequence[CostSummary]) -> Iterator[Finding]:
    """Find points that have emitted nothing although other points of their module emit.

    multiprocessing names the main module ``__mp_main__`` in its children.
    """
    counts: Counter[str] = Counter()
    for cost in costs:
        counts[cost.point.replace("__mp_main__:", "__main__:")] += cost.count
    emitting = {_module(point) for point, count in counts.items() if count}
    silent = [p for p, count in counts.items() if not count and _module(p) in emitting]
    if silent:
        some = ", ".join(silent[:3]) + (", …" if len(silent) > 3 else "")
        have = plural(len(silent), "point has", "points have")
        modules = "its module emits" if len(silent) == 1 else "their modules emit"
        yield Finding(
            "points",
            "note",
            f"{have} emitted nothing although {modules} ({some})",
            "if a function did run, and ended as its point says, a decorator that registers it has "
            "kept the bare function: put the sidelight decorator directly above `def`",
        )


def _module(point: str) -> str:
    return point.partition(":")[0]
