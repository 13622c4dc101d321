"""Commands that a message prints: a shell takes them as they are, and they reach what they name."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from sidelight.exceptions import SidelightError
from sidelight.record import is_same_store, is_same_stream
from sidelight.settings import settle

_PRINTED: Final = re.compile(r"`sidelight (?P<name>[a-z]+(?: [a-z]+)?)(?P<rest>[^`]*)`")
TAKES: Final[Mapping[str, Sequence[str]]] = {
    "artifacts": ["store"],
    "budget": ["store"],
    "consume": ["store", "spool"],
    "counts": ["store"],
    "doctor": ["stream", "store", "spool"],
    "erase": ["store", "spool"],
    "events": ["store"],
    "overdue": ["store", "spool"],
    "prune": ["store"],
    "relay": ["stream", "store", "spool"],
    "replay": ["stream", "store"],
    "spool": ["store", "spool"],
    "spool discard": ["store", "spool"],
    "spool quarantined": ["store", "spool"],
    "spool replay": ["stream", "store", "spool"],
}
"""The commands that a remedy names, and their options that name a place."""


def as_command(*words: str, **options: object) -> str:
    """Return a command of sidelight, quoted for a shell; options that are None are left out."""
    given = [
        part
        for name, value in options.items()
        if value is not None
        for part in (f"--{name}", str(value))
    ]
    return shlex.join(["sidelight", *words, *given])


def relay_command(
    spool: Path, store: Any = None, stream: Any = None, *, once: bool = True, otlp: Any = None
) -> str:
    """Return the relay that reads a spool and reaches the destinations of its records.

    Its options are those that the environment does not say.

    Args:
        spool: the directory.
        store: the URL of the store, as a header names it; None or "" where there is none.
        stream: the address of the stream; None or "" where there is none.
        once: whether it delivers what is there, and ends.
        otlp: the endpoint; None for that of the environment.
    """
    words = ["relay", "--once"] if once else ["relay"]
    return as_command(*words, **_options(spool, store, stream), otlp=otlp)


def located(text: str, spool: Path | None, store: Any = None, stream: Any = None) -> str:
    """Return a text whose commands in backticks reach the places that were asked.

    A command that names a place already stays as it is.

    Args:
        text: a remedy.
        spool: the directory; None where it does not matter.
        store: the URL of the store; None or "" where there is none.
        stream: the address of the stream; None or "" where there is none.
    """

    def complete(found: re.Match[str]) -> str:
        name, rest = found["name"], found["rest"]
        takes = TAKES.get(name) or TAKES.get(name.partition(" ")[0], ())
        if any(f"--{each} " in rest for each in ("store", "spool", "stream")):
            return found[0]
        places = _options(spool, store, stream if "stream" in takes else None)
        missing = as_command(**{each: places[each] for each in takes}).removeprefix("sidelight")
        return f"`sidelight {name}{rest}{missing}`"

    return _PRINTED.sub(complete, text)


def _options(spool: Path | None, store: Any, stream: Any) -> dict[str, object]:
    """Return the options that name places, without those that the environment says."""
    named = {"stream": stream, "store": store}  # a crafted header may hold anything
    options = {
        name: value if value and isinstance(value, str) else None for name, value in named.items()
    }
    place = spool
    with contextlib.suppress(SidelightError, RuntimeError):  # RuntimeError: ~ of no user
        here = settle()
        if here.stream is not None and is_same_stream(options["stream"], here.stream):
            options["stream"] = None
        if is_same_store(options["store"], here.named_store):
            options["store"] = None
        there = settle(options["store"], stream=options["stream"])
        if spool is not None and there.spool == spool.absolute():
            place = None
    return {**options, "spool": place}
