"""How values look on a page: filters of the templates."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from math import ceil, log
from typing import Final
from urllib.parse import quote

import msgspec
from jinja2 import Environment
from markupsafe import Markup, escape

from sidelight.store import (
    Event,
    ago,
    duration,
    from_ns,
    number,
    size,
    symbol,
    whole_seconds,
)

_LONGEST: Final = 300  # characters of one attribute on a page


def register(templates: Environment) -> None:
    """Make the filters known to the templates."""
    templates.filters |= {
        "duration": duration,
        "number": number,
        "ago": ago,
        "time": from_ns,
        "moment": moment,
        "symbol": symbol,
        "attributes": attributes,
        "artifact": artifact,
        "size": size,
        "whole": whole_seconds,
        "heights": heights,
        "breakable": breakable,
        "code": code,
    }


def attributes(event: Event) -> list[tuple[str, str]]:
    """Return the attributes as names and texts; those of an error come first."""
    ordered = sorted(event.attributes.items(), key=lambda item: not item[0].startswith("error."))
    return [(name, _text(value)) for name, value in ordered]


def _text(value: object) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value, enc_hook=repr).decode()
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def moment(when: datetime) -> Markup:
    """Return a time in UTC; the script of the page adds the time of the reader's zone."""
    utc = when.astimezone(UTC)
    clock = f"{utc:%H:%M:%S}.{utc.microsecond // 1000:03}"
    return Markup('<time datetime="{}"><span>{} </span>{}<span> UTC</span></time>').format(
        utc.isoformat(), f"{utc:%Y-%m-%d}", clock
    )


def breakable(name: str) -> Markup:
    """Return a name that may go on in the next line after an underscore, a dot or a colon."""
    return Markup("<wbr>").join(re.split(r"(?<=[_.:])(?=\w)", name))


def code(told: object) -> Markup:
    """Return a sentence whose commands and names, in backticks in a terminal, are set as code."""
    pieces = str(told).split("`")
    if len(pieces) % 2 == 0:  # one has no partner
        return escape(str(told))
    return Markup("").join(
        Markup("<code>{}</code>").format(piece) if place % 2 else escape(piece)
        for place, piece in enumerate(pieces)
    )


def artifact(artifact_id: str) -> Markup:
    """Return a link to the page of an artifact."""
    return Markup('<a href="/artifact/{}">{}</a>').format(
        quote(artifact_id, safe=""), escape(artifact_id)
    )


def heights(counts: Sequence[int]) -> list[int]:
    """Return the heights of a histogram's bars: 0 for none, else 1 to 22 on a logarithmic scale."""
    highest = log(max(counts, default=0) + 2)
    return [ceil(22 * log(count + 1) / highest) if count else 0 for count in counts]
