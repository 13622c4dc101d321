"""Check the settings of this environment by the functions that a process checks them by.

`settle` has refused what it refuses, and the checks of the stream and of the outboxes look at their
settings. What is left is the directory of hot segments, and the map.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sidelight.cli.doctor.findings import Finding
from sidelight.exceptions import ConfigurationError, MapError
from sidelight.settings import Settings, is_on
from sidelight.spool import hot_directory


def check_settings(settings: Settings) -> Iterator[Finding]:
    """Find settings of the environment that a process refuses."""
    yield from check_hot(settings)
    yield from _check_map(settings)


def check_hot(settings: Settings) -> Iterator[Finding]:
    """Find out why a process cannot use the directory of hot segments; make nothing."""
    try:
        hot_directory(settings.hot, settings.spool, make=False)
    except ConfigurationError as error:
        yield _refused("SIDELIGHT_HOT is refused (", error, "): every event is lost")


def _check_map(settings: Settings) -> Iterator[Finding]:
    """Find out why the map is not woven as Python starts."""
    path = settings.environment.get("SIDELIGHT_MAP")
    if not path:
        return
    from sidelight.maps import read_map  # noqa: PLC0415  # slow to import

    try:
        read_map(path)
        is_on("SIDELIGHT_MAP_LENIENT", settings.environment)
    except (ConfigurationError, MapError) as error:
        yield _refused("SIDELIGHT_MAP is refused (", error, "): no function of the map emits")


def _refused(variable: str, error: ConfigurationError | MapError, effect: str) -> Finding:
    facts: Any = error.facts
    place = facts.get("setting", facts.get("place"))
    text = f"{variable}{place}: {facts['problem']}{effect}"
    return Finding("settings", "wrong", text, str(facts["remedy"]))
