"""Notice that a store was set back: by a backup, or by a replica that was behind at a failover.

The spool deletes what the store has. So a store that is set back loses events whose receipts said
`stored`, and no other trace of them is left. A sink therefore remembers its latest commits, and
asks before each commit whether the store still has the one before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from sidelight.store.database import Connection
from sidelight.store.statements import Delivery

GONE: Final = "gone from the store"
_REMEMBERED: Final = 1000  # commits of a sink


class Witness:
    """The latest commits of one sink."""

    def __init__(self, count: Callable[[str, str], None], store: str) -> None:
        """Remember nothing yet.

        Args:
            count: called with reason and problem for each event that is gone.
            store: names the store in the problem, because the process reports all its losses to
                the store that is configured then.
        """
        self._count = count
        self._store: Final = store
        self._commits: deque[tuple[int, int]] = deque(maxlen=_REMEMBERED)

    @property
    def latest(self) -> int:
        """The ``recorded_at`` of the latest commit; 0 before the first."""
        return self._commits[-1][0] if self._commits else 0

    def committed(
        self,
        connection: Connection,
        deliveries: Sequence[Delivery],
        events: int,
        *,
        was_there: bool,
    ) -> None:
        """Remember a commit, and count what the store has lost before it.

        Args:
            connection: to the store.
            deliveries: that the commit has noted in the store.
            events: how many it has added.
            was_there: whether the store had the `latest` commit before this one.

        Raises:
            DatabaseError: the database does not answer.
        """
        if not was_there:
            self._count_missing(connection)
        if deliveries and events:
            self._commits.append((deliveries[0].recorded_at, events))

    def _count_missing(self, connection: Connection) -> None:
        """Count the events of the commits that are not there, unless a pruner deleted them."""
        with connection.transaction(undo=True):
            (kept_since,) = connection.execute("SELECT kept_since FROM retention").fetchone()
            wanted = ", ".join(str(recorded_at) for recorded_at, _ in self._commits)
            query = f"SELECT recorded_at FROM deliveries WHERE recorded_at IN ({wanted})"  # noqa: S608  # numbers
            there = {recorded_at for (recorded_at,) in connection.execute(query)}
        cause = "it was restored, replaced, or its replica was behind"
        problem = f"{self._store} has lost commits: {cause}"
        for recorded_at, events in self._commits:
            if recorded_at not in there and recorded_at >= kept_since:
                for _ in range(events):
                    self._count(GONE, problem)
        remembered = [each for each in self._commits if each[0] in there]
        self._commits.clear()
        self._commits.extend(remembered)
