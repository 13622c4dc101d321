"""What the server answers in a pipeline of psycopg, which reads answers later than it sends.

psycopg keeps a queue of what it has sent: a cursor for a statement of the caller, None for a
command of its own, as BEGIN and COMMIT are. When it reads, it passes each element of the queue with
its results to one method, which is overlaid here for the time of a commit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from psycopg.pq import ExecStatus, TransactionStatus

from sidelight.transactions import control
from sidelight.transactions.control import Statement
from sidelight.transactions.entry import Entry


@contextlib.contextmanager
def own_answers(connection: Any) -> Iterator[list[bytes]]:
    """Collect the command tags that answer psycopg's own commands, the newest last.

    Args:
        connection: of either kind, in a pipeline.

    Yields:
        The tags that are read in the block; empty ones stand for commands that have failed.
    """
    pipeline = connection._pipeline  # noqa: SLF001
    process = pipeline._process_results  # noqa: SLF001
    tags: list[bytes] = []

    def collect(queued: Any, results: Any) -> None:
        if queued is None and results[-1].status != ExecStatus.PIPELINE_SYNC:
            tags.append(results[-1].command_status or b"")
        process(queued, results)

    try:
        pipeline._process_results = collect  # noqa: SLF001
        yield tags
    finally:
        pipeline.__dict__.pop("_process_results", None)  # an interrupt may have come before it


def status_after(each: Statement | Entry, before: int) -> int:
    """Return the status of a transaction after a statement that has succeeded."""
    if isinstance(each, Entry):
        return before
    if each.begins:
        return TransactionStatus.INTRANS
    return TransactionStatus.IDLE if each.verb in control.ENDS else before


def statements_in(sent: Sequence[Statement | Entry]) -> list[Statement]:
    """Return the statements without the events that were added between."""
    return [each for each in sent if isinstance(each, Statement)]


def may_be_alone(sent: Sequence[Statement], before: int) -> bool:
    """Return whether a COPY or one statement may have written, and has no transaction."""
    is_copy = before == TransactionStatus.ACTIVE
    return is_copy or (len(sent) == 1 and sent[0].verb == control.OTHER)
