"""Run the checks of the doctor beside the pages: they may wait for an endpoint that is silent."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from sidelight.page.beside import Health

_FRESH: Final = timedelta(seconds=5)  # longer than a page takes to ask again


class Findings(NamedTuple):
    """What an examination found.

    Attributes:
        at: when it ended.
        found: the findings.
        is_running: whether a newer examination goes on.
    """

    at: datetime
    found: Sequence[Health]
    is_running: bool


class Examination:
    """Examines anew for a page that asks; one examination serves all that ask meanwhile.

    Args:
        health: runs the checks.
    """

    def __init__(self, health: Callable[[], Sequence[Health]]) -> None:
        self._health = health
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._last: Findings | None = None
        self._error: Exception | None = None

    def look(self, patience: float) -> Findings | None:
        """Examine, or wait for the examination that goes on; return the last findings.

        Args:
            patience: seconds to wait for it. After that the findings are those of the examination
                before; None where there was none.

        Raises:
            Exception: of the checks.
        """
        with self._lock:
            thread = self._thread
            if thread is None or (not thread.is_alive() and self._is_old()):
                # A daemon, because the end of the pages does not wait for a silent endpoint.
                thread = self._thread = threading.Thread(target=self._examine, daemon=True)
                thread.start()
        thread.join(patience)
        if self._error is not None:
            raise self._error
        return self._last and self._last._replace(is_running=thread.is_alive())

    def _is_old(self) -> bool:
        return self._last is None or datetime.now(UTC) - self._last.at > _FRESH

    def _examine(self) -> None:
        try:
            found = self._health()
            self._last = Findings(datetime.now(UTC), found, is_running=False)
            self._error = None
        except Exception as error:  # noqa: BLE001  # it is raised where a page asks
            self._error = error
