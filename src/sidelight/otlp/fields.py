"""The fields that spans and log records share: names, ids, and attributes within limits."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from sidelight.otlp.wire import Attributes, Texts, bounded_value
from sidelight.record import ARTIFACT_KEY, CUT, ORGANIZATION_KEY, Moment, Static, to_json

Encode: TypeAlias = Callable[[Static, Moment], bytes | None]
"""Writes what a record holds for one signal, as a field of the message around it."""


def code_function(static: Static) -> str:
    """``voice_notes.artifacts.create_artifact``: the value of ``code.function.name``."""
    return static.point.replace(":", ".")


def event_name(static: Static) -> str:
    """``artifact_received`` in ``voice_notes.artifacts``: ``voice_notes.artifact.received``."""
    package = static.point.partition(":")[0].partition(".")[0]
    name = (static.type or "").replace("_", ".")
    return name if package in {"", "__main__", "sidelight"} else f"{package}.{name}"


def identity(moment: Moment) -> list[tuple[str, Any]]:
    """Return the attributes that say what the record is about, and whether it is whole."""
    found: list[tuple[str, Any]] = []
    if (artifact := moment.artifact_id) is not None:
        found.append((ARTIFACT_KEY, artifact if type(artifact) is str else _id(artifact)))
    if (organization := moment.organization_id) is not None:
        found.append(
            (ORGANIZATION_KEY, organization if type(organization) is str else _id(organization))
        )
    if moment.flags & CUT:
        found.append(("sidelight.truncated", True))
    return found


class Identity:
    """Writes the attributes of `identity`; the usual ones on a fast way."""

    def __init__(self, attributes: Attributes) -> None:
        self._attributes = attributes
        self._artifacts = Texts(attributes, ARTIFACT_KEY)
        self._organizations = Texts(attributes, ORGANIZATION_KEY)

    def add(self, parts: list[bytes], moment: Moment) -> None:
        """Write those of a record to ``parts``."""
        if moment.flags & CUT:
            self._attributes.add(parts, identity(moment))
            return
        if (artifact := moment.artifact_id) is not None:
            parts.append(self._artifacts[artifact if type(artifact) is str else _id(artifact)])
        if (organization := moment.organization_id) is not None:
            parts.append(
                self._organizations[
                    organization if type(organization) is str else _id(organization)
                ]
            )


def _id(value: Any) -> str:
    """Return an id as text, equal to the store's."""
    return str(value) if isinstance(value, str | int | float) else to_json(value)


def usual_most(most: int | None, length: int | None, own: int) -> int:
    """Return how many given attributes need no look at the limits; -1 where all need one.

    Args:
        most: limit of the number of attributes.
        length: limit of the characters of a text.
        own: how many attributes sidelight adds at most.
    """
    if length is not None:
        return -1
    return sys.maxsize if most is None else most - own


def bounded(
    given: Mapping[str, Any], most: int | None, length: int | None, dropped: int = 0
) -> tuple[dict[str, Any], int]:
    """Return the newest ``most`` attributes without None, and how many were dropped in all."""
    kept = {key: bounded_value(value, length) for key, value in given.items() if value is not None}
    if most is not None and len(kept) > most:
        dropped += len(kept) - most
        kept = dict(tuple(kept.items())[len(kept) - most :])
    return kept, dropped
