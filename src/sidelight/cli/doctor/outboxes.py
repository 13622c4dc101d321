"""Check the outboxes of business databases: does a relay drain them?"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator

from sidelight.cli.doctor.findings import Finding
from sidelight.cli.spool.commands import as_command
from sidelight.cli.spool.waiting import PATIENCE
from sidelight.exceptions import SidelightError
from sidelight.settings import public_url
from sidelight.store import plural, whole_seconds
from sidelight.transactions import outbox_status


def check_outboxes(urls: Collection[str], beside: Collection[str] = ()) -> Iterator[Finding]:
    """Find outboxes that no relay can drain, and events that wait in them for too long.

    Args:
        urls: of the outboxes that the settings name.
        beside: of those that only segments name, without passwords; see `outboxes_beside`.
    """
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
