"""Check the outboxes of business databases: does a relay drain them?"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from sidelight.cli.doctor.findings import Finding
from sidelight.cli.spool.commands import as_command
from sidelight.cli.spool.segments import writers_of
from sidelight.cli.spool.waiting import PATIENCE
from sidelight.exceptions import SidelightError
from sidelight.host import is_directory
from sidelight.settings import public_url, sqlite_path
from sidelight.store import plural, whole_seconds
from sidelight.transactions import outbox_status


def outboxes_named_in(spool: Path) -> list[str]:
    """Return the outboxes that the segments of a spool leave to an external relay."""
    try:
        headers = writers_of(spool) if is_directory(spool) else []
    except OSError:  # `check_spool` tells it
        return []
    return [*dict.fromkeys(url for each in headers for url in each.get("outboxes", ()))]


def check_outboxes(urls: Collection[str], found: Iterable[str] = ()) -> Iterator[Finding]:
    """Find outboxes that no relay can drain, and events that wait in them for too long.

    Args:
        urls: of the outboxes that the settings name.
        found: of those that segments name, without passwords; see `outboxes_named_in`.
    """
    known = {public_url(url).replace(":***@", "@") for url in urls}
    known |= {f"sqlite:///{path.absolute()}" for path in map(sqlite_path, urls) if path is not None}
    beside = [url for url in found if url not in known]
    for url in (*urls, *beside):
        try:
            status = outbox_status(url)
        except SidelightError as error:
            remedy = f"{error.facts['remedy']}"
            if url in beside and error.facts.get("holds_events", True):  # it was not reached
                remedy = "name it with its password: --outbox or SIDELIGHT_OUTBOXES"
            yield Finding(
                "outbox",
                "note" if url in beside else "wrong",
                f"{public_url(url)}: {error.facts['problem']}",
                remedy,
            )
            continue
        waits = plural(status.waiting, "event waits", "events wait")
        age = 0 if status.oldest_ns is None else time.time_ns() - status.oldest_ns
        if status.obstacle is not None:
            yield Finding(
                "outbox",
                "wrong",
                f"{status.url}: {waits}, and no relay with this URL moves events: "
                f"{status.obstacle.problem}",
                status.obstacle.remedy,
            )
        elif age > PATIENCE:
            yield Finding(
                "outbox",
                "wrong",
                f"{status.url}: {waits}, the oldest for {whole_seconds(age)}: no relay drains it",
                f"`{as_command('relay', outbox=status.url)}`, or configure(outboxes=[…]) in a "
                "process with a relay",
            )
        else:
            yield Finding("outbox", "ok", f"{status.url}: {waits}")
        if status.deleting_triggers:
            yield Finding(
                "outbox",
                "wrong",
                f"{status.url}: a trigger deletes rows of sidelight_outbox "
                f"({', '.join(status.deleting_triggers)}): events of committed work may be missing",
                "drop the trigger; nothing proves that a row is there at the commit",
            )
        if status.journal_mode not in {None, "wal"}:
            yield Finding(
                "outbox",
                "note",
                f"{status.url}: journal mode {status.journal_mode}: a commit waits while a relay "
                "reads",
                f"`{as_command('outbox', 'create', status.url)}` puts the database into WAL mode",
            )
