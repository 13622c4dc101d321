"""How values look on a page: filters of the templates."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from math import log10
from typing import Final
from urllib.parse import quote

import msgspec
from jinja2 import Environment
from markupsafe import Markup, escape

from sidelight.store import Event, ago, duration, from_ns, number

_GLYPHS: Final = {
    "started": "▸",
    "succeeded": "✓",
    "failed": "✗",
    "closed": "◂",
    "emitted": "•",
    "abandoned": "✝",
}
_LONGEST: Final = 300  # characters of one attribute on a page


def register(templates: Environment) -> None:
    """Make the filters known to the templates."""
    templates.filters |= {
        "duration": duration,
        "number": number,
        "ago": ago,
        "time": from_ns,
        "moment": moment,
        "glyph": glyph,
        "attributes": attributes,
        "artifact": artifact,
        "budget": budget,
        "breakable": breakable,
    }


def glyph(event: Event) -> str:
    """The outcome of an event as one character."""
    return _GLYPHS.get(event.outcome, "?")


def attributes(event: Event) -> list[tuple[str, str]]:
    """The attributes as names and texts; those of an error come first."""
    ordered = sorted(event.attributes.items(), key=lambda item: not item[0].startswith("error."))
    return [(name, _text(value)) for name, value in ordered]


def _text(value: object) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value, enc_hook=repr).decode()
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def moment(when: datetime) -> Markup:
    """A time in UTC; the script of the page adds the time of the reader's zone."""
    utc = when.astimezone(UTC)
    clock = f"{utc:%H:%M:%S}.{utc.microsecond // 1000:03}"
    return Markup('<time datetime="{}"><span>{} </span>{}<span> UTC</span></time>').format(
        utc.isoformat(), f"{utc:%Y-%m-%d}", clock
    )


def breakable(name: str) -> Markup:
    """A name that may go on in the next line after an underscore, a dot or a colon."""
    return Markup("<wbr>").join(re.split(r"(?<=[_.:])(?=\w)", name))


def artifact(artifact_id: str) -> Markup:
    """A link to the page of an artifact."""
    return Markup('<a href="/artifact/{}">{}</a>').format(
        quote(artifact_id, safe=""), escape(artifact_id)
    )


def budget(ns: int) -> int:
    """Where a cost lies between 1 µs and 10 ms, on a logarithmic scale: 0 to 1000."""
    return round(max(0.0, min(1000.0, 250 * (log10(max(ns, 1)) - 3))))
