"""Settings take effect: what was open is closed, and spool and relay are opened."""

from __future__ import annotations

from typing import Final

from sidelight.emission import EMITTER
from sidelight.runtime.forks import RUNTIME
from sidelight.runtime.inheritance import hand_on, warn_of_default_store
from sidelight.runtime.process import EXIT_WITHIN
from sidelight.settings import Settings
from sidelight.spool import hot_directory

_ANSWERS_WITHIN: Final = 0.5  # seconds


def apply(settings: Settings) -> None:
    """Use the settings from now on; see `configure`.

    Args:
        settings: of this process. A test's recording keeps them for its end.

    Raises:
        ConfigurationError: the spool, or the directory of its hot segment, cannot be used.
    """
    hot_directory(settings.hot, settings.spool)
    warn_of_default_store(settings)
    EMITTER.end_recording()
    if EMITTER.recording == "no":
        RUNTIME.configure(settings)
        hand_on(settings)
        if RUNTIME.relay is not None:
            RUNTIME.relay.await_store(_ANSWERS_WITHIN)
    else:
        restore(settings)


def restore(settings: Settings | None) -> None:
    """Close what is open. The next emission outside a test's recording opens by ``settings``."""
    RUNTIME.close(EXIT_WITHIN)
    RUNTIME.settings = settings
    hand_on(settings)
