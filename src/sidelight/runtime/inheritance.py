"""The settings that a process hands on to its children of `multiprocessing`.

A child by *spawn* or *forkserver* runs no ``configure()`` that stands under
``if __name__ == "__main__"``. `multiprocessing` copies a small dictionary from each process to its
children, together with the process's object, through a pipe. The settings travel in that
dictionary, because the environment of a process is public to its user, and a URL may have a
password.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from msgspec.structs import fields, replace

from sidelight.host import imported, log_warning, when_imported
from sidelight.settings import Settings, settle

_KEY: Final = "sidelight"
_MULTIPROCESSING: Final = "multiprocessing.process"
_waiting: Final[list[object]] = []
_told: Final[set[str]] = set()


def hand_on(settings: Settings | None) -> None:
    """Let the children of this process have ``settings``, where they configure nothing.

    A program that never imports `multiprocessing` starts none, and need not pay for its import.
    """
    when_imported(_MULTIPROCESSING, lambda: _hand_on(settings))


def _hand_on(settings: Settings | None) -> None:
    # The module is complete here, although the import system still has to note that.
    inherited = _configuration_of(sys.modules[_MULTIPROCESSING].current_process())
    if inherited is None:
        if settings is not None and _KEY not in _told:
            _told.add(_KEY)
            log_warning(
                "sidelight: this version of multiprocessing does not hand on the configuration;"
                " call sidelight.configure() in each child process, or set SIDELIGHT_STORE"
            )
        return
    inherited.pop(_KEY, None)
    if settings is not None:
        names = [each.name for each in fields(settings) if each.name != "environment"]
        given = {name: getattr(settings, name) for name in names}  # as built-in objects
        inherited[_KEY] = {**given, "spool": os.fspath(settings.spool), "role": "application"}


def settled() -> Settings:
    """Return the parent's settings, else the environment's, for a process without `configure`.

    Raises:
        ConfigurationError: the environment is not valid.
    """
    process = _this_process()
    given = (_configuration_of(process) or {}).get(_KEY)
    if given is not None:
        spool = Path(given["spool"])
        return Settings(**{**given, "spool": spool}, environment=dict(os.environ))
    settings = settle()
    warn_of_default_store(settings)
    return settings


def without_relay(settings: Settings, problem: str) -> Settings:
    """Return the settings of a process that has to leave its events to another relay, and log it.

    Args:
        settings: as they were.
        problem: why the process cannot deliver.
    """
    if settings.relay == "external":
        return settings
    log_warning(
        "sidelight: this process cannot deliver its events (%s); another relay does: run `sidelight"
        " relay`",
        problem,
    )
    return replace(settings, relay="external")


def warn_of_default_store(settings: Settings) -> None:
    """Log where events go that no code and no variable has named a store for."""
    if settings.is_default_store and settings.relay == "thread":
        log_warning(
            "sidelight: no store is named, so events go to %s; call sidelight.configure(…) in each"
            " process, or set SIDELIGHT_STORE",
            settings.store,
        )


def is_being_prepared() -> bool:
    """Return whether this child still imports the main module, before the parent's settings."""
    return getattr(_this_process(), "_inheriting", False) is True


def awaits_settings() -> bool:
    """Return whether something waits for the parent's settings."""
    return bool(_waiting)


def when_prepared(do: Callable[[], object]) -> None:
    """Call ``do`` as soon as the parent's settings have arrived."""
    from multiprocessing.util import register_after_fork  # noqa: PLC0415  # in a child: imported

    class Once:
        """Keeps the registration as long as it lives."""

    def arrived(_: object) -> None:
        _waiting.clear()
        do()

    if not _waiting:
        _waiting.append(Once())
        register_after_fork(_waiting[0], arrived)


def _this_process() -> Any:
    module = imported(_MULTIPROCESSING)
    return None if module is None else module.current_process()


def _configuration_of(process: Any) -> dict[str, Any] | None:
    """Return the dictionary of a process that its children get; None where there is none."""
    found = getattr(process, "_config", None)
    return found if isinstance(found, dict) else None
