"""Commands that a message prints: a shell takes them as they are, and they reach what they name."""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path
from typing import Any

from sidelight.exceptions import SidelightError
from sidelight.record import is_same_store, is_same_stream
from sidelight.settings import settle


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
    named = {"stream": stream, "store": store}  # a crafted header may hold anything
    options = {
        name: value if value and isinstance(value, str) else None for name, value in named.items()
    }
    place: Path | None = spool
    with contextlib.suppress(SidelightError, RuntimeError):  # RuntimeError: ~ of no user
        here = settle()
        if is_same_stream(options["stream"], here.stream):
            options["stream"] = None
        if is_same_store(options["store"], here.named_store):
            options["store"] = None
        if settle(options["store"], stream=options["stream"]).spool == spool.absolute():
            place = None
    words = ["relay", "--once"] if once else ["relay"]
    return as_command(*words, **options, spool=place, otlp=otlp)
