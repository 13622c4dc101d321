"""Outboxes that events of this process have joined, but that its own relay does not drain.

Another relay may drain them, on this machine or on another. The proof is an event that has joined
the outbox and is in the store.
"""

from __future__ import annotations

from typing import Final

from sidelight.emission import EMITTER
from sidelight.exceptions import SidelightError
from sidelight.host import monotonic, sleep
from sidelight.settings import Settings
from sidelight.transactions import Joined, outboxes_not_drained

_GRACE: Final = 10.0  # seconds; a transaction may be long, and another relay may be late
_ASK_AGAIN: Final = 5.0  # seconds between two questions to the store
_PATIENCE: Final = 2.0  # seconds that a flush waits for a relay that has not proved itself
_POLL: Final = 0.1  # seconds


class ForgottenOutboxes:
    """Counts the outboxes that no relay drains, each once."""

    def __init__(self, settings: Settings | None) -> None:
        self._settings = settings
        self._drained: set[str] = set()  # by another relay, as events have proved
        self._asked = -_ASK_AGAIN

    def count_now_and_then(self) -> None:
        """Count the outboxes whose events do not arrive; for the ledger, twice a second."""
        now = monotonic()
        for each in self._unproved():
            if now - each.since > _GRACE and now - self._asked > _ASK_AGAIN:
                self._asked = now
                if not self._arrived(each):
                    _count(each)

    def count_all(self) -> None:
        """Count the outboxes that nothing has proved to be drained.

        The store is not asked, because that would take too long at the end of the process.
        """
        for each in self._unproved():
            _count(each)

    def await_arrival(self, until: float) -> bool:
        """Wait until the latest joined events are in the store; for `flush`.

        Args:
            until: when to stop (`monotonic`); sooner where no event has ever arrived.

        Returns:
            Whether they are there.
        """
        soon = min(until, monotonic() + _PATIENCE)
        while not all(self._arrived(each, every=True) for each in self._not_drained()):
            if monotonic() >= (soon if self._unproved() else until):
                self.count_all()
                return False
            sleep(_POLL)
        return True

    def _not_drained(self) -> list[Joined]:
        if self._settings is None or self._settings.relay != "thread":
            return []  # `sidelight doctor` looks into what the settings name
        return outboxes_not_drained(self._settings.outboxes)

    def _unproved(self) -> list[Joined]:
        return [each for each in self._not_drained() if each.name not in self._drained]

    def _arrived(self, joined: Joined, *, every: bool = False) -> bool:
        """Return whether some, or every one, of the latest events are in the store."""
        if self._settings is None or self._settings.store is None:
            return False
        from sidelight.store import Store  # noqa: PLC0415  # few processes ask

        ids = {*joined.event_ids.copy()}
        try:
            with Store(self._settings.store) as store:
                found = store.holds(ids)
        except SidelightError:  # it does not answer now, or is not there yet
            return False
        if found:
            self._drained.add(joined.name)
        return found == ids if every else bool(found)


def _count(joined: Joined) -> None:
    if f"outbox not drained: {joined.name}" not in EMITTER.losses:
        remedy = "name it in configure(outboxes=[…]) or to a relay"
        EMITTER.count(f"outbox not drained: {joined.name}", remedy)
