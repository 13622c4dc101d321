"""Print answers: consoles, JSON, and the text of names and attributes."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from itertools import chain
from typing import TYPE_CHECKING, Final, TextIO, TypeVar

import msgspec
from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from sidelight.cli.palette import BLUE, CYAN, GREEN, GREY, MAGENTA, RED
from sidelight.host import monotonic
from sidelight.store import from_ns, moment, symbol

if TYPE_CHECKING:
    from sidelight.store import Event

T = TypeVar("T")

_SHOW_PROGRESS_AFTER: Final = 1.0  # seconds
_PIPED_WIDTH: Final = 1_000_000  # columns: nothing is cut or folded in a pipe
_NONE: Final = "·"
_MASKED: Final = re.compile(r"`sidelight [^`]*\*\*\*[^`]*`")
_HINT: Final = "with the password in place of ***"

OUTCOME_LOOKS: Final[Mapping[str, tuple[str, str]]] = {
    outcome: (symbol(outcome), colour)
    for outcome, colour in {
        "started": BLUE,
        "succeeded": GREEN,
        "failed": RED,
        "abandoned": RED,
        "emitted": CYAN,
    }.items()
}
"""Symbol and colour of each outcome."""
_OTHER_LOOK: Final = (symbol("unknown"), MAGENTA)


# -- where text goes -------------------------------------------------------------------------


def console() -> Console:
    """Return the console for answers: stdout, as wide as its terminal."""
    return Console(width=_width(sys.stdout) or _PIPED_WIDTH, highlight=False, emoji=False)


def _width(stream: TextIO) -> int | None:
    """Return the columns of a terminal, COLUMNS first; None in a pipe.

    rich takes 80 for a terminal without colours.
    """
    with contextlib.suppress(KeyError, ValueError):
        return max(1, int(os.environ["COLUMNS"]))
    with contextlib.suppress(OSError, ValueError):
        return os.get_terminal_size(stream.fileno()).columns or 80
    return None


def with_hint_of_password(text: str) -> str:
    """Say that a command in backticks needs the password that it does not show."""
    return f"{text} ({_HINT})" if _MASKED.search(text) and _HINT not in text else text


def complain(message: object) -> None:
    """Print an error on stderr."""
    _to_stderr(message, RED)


def remark(message: object) -> None:
    """Print a note on stderr, which is neither an answer nor an error."""
    _to_stderr(message, GREY)


def remark_left_out(what: str, left_out: datetime | None, *, oldest_first: bool = False) -> None:
    """Tell on stderr what a time limit left out of an answer, if anything."""
    if left_out is not None:
        at = f"{moment(left_out)} UTC"
        where = f"from {at} on" if oldest_first else f"before {at}"
        remark(f"not all {what} {where} were examined; --time-limit SECONDS takes more time")


def _to_stderr(message: object, style: str) -> None:
    text = clean(with_hint_of_password(str(message)), keep="\n")
    if sys.stderr.isatty() and (width := _width(sys.stderr)):
        text = "\n".join(chain.from_iterable(_wrapped(line, width) for line in text.splitlines()))
    out = Console(stderr=True, highlight=False, emoji=False)
    out.print(Text(text, style=style), soft_wrap=True)


def _wrapped(line: str, width: int) -> Iterator[str]:
    """Break a line at spaces. A word that is longer, as a path, stays whole: it is to be copied."""
    first, *words = line.split(" ")
    for word in words:
        if cell_len(f"{first} {word}") > width:
            yield first
            first = word
        else:
            first = f"{first} {word}"
    yield first


def print_json(items: Iterable[object]) -> None:
    """Print one JSON object per line."""
    for item in items:
        sys.stdout.write(json_line(item))
        sys.stdout.flush()


def json_line(item: object) -> str:
    """Return an object as JSON on a line of its own."""
    if dump := getattr(item, "model_dump_json", None):
        return f"{dump()}\n"
    plain = dataclasses.asdict(item) if dataclasses.is_dataclass(item) else item  # type: ignore[arg-type]
    return f"{_json(plain)}\n"


def _json(value: object) -> str:
    return msgspec.json.encode(value, enc_hook=repr).decode()


@contextlib.contextmanager
def stdout_kept_clean() -> Iterator[None]:
    """Send to stderr all that modules print while they are imported."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def with_progress(
    items: Iterable[T], doing: str, total: int, weight: Callable[[T], int] = lambda _: 1
) -> Iterator[T]:
    """Yield the items; on a terminal, show a bar on stderr after one second.

    Args:
        items: to work on.
        doing: the work, as the bar names it.
        total: the sum of the weights.
        weight: how much an item adds to the bar, after the work on it.
    """
    out = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=out,
        transient=True,
        disable=not out.is_terminal,
    )
    task = bar.add_task(doing, total=total)
    begun = monotonic()
    try:
        for item in items:
            if not bar.live.is_started and monotonic() - begun > _SHOW_PROGRESS_AFTER:
                bar.start()
            yield item
            bar.advance(task, weight(item))
    finally:
        bar.stop()


# -- text ------------------------------------------------------------------------------------


def clean(text: str, *, keep: str = "") -> str:
    """Spell out control characters, because they could move the terminal's cursor."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or each in keep else each.encode("unicode_escape").decode()
        for each in text.encode("utf-8", "backslashreplace").decode()
    )


def named(text: str | None, style: str = "") -> Text:
    """Return a name or an id; a dim dot stands for None."""
    return Text(_NONE, style=GREY) if text is None else Text(clean(text), style=style)


def outcome_look(event: Event) -> tuple[str, str]:
    """Return the symbol and the colour of an event's outcome."""
    return OUTCOME_LOOKS.get(event.outcome, _OTHER_LOOK)


def outcome_symbol(event: Event) -> Text:
    """Return the outcome as one coloured character."""
    character, colour = outcome_look(event)
    return Text(character, style=colour)


def attributes(event: Event) -> Text:
    """Return the attributes in one line; those of an error come first."""
    shown = Text()
    for name, value in sorted(event.attributes.items(), key=lambda item: item[0] != "error.type"):
        style = RED if name.startswith("error.") else GREY
        shown.append(" " if shown else "")
        shown.append(f"{clean(name)}=", style=GREY)
        shown.append(clean(value if isinstance(value, str) else _json(value)), style=style)
    return shown


def time_of(ns: object) -> datetime | None:
    """Convert nanoseconds since 1970 that come from a file; None where they are no time."""
    try:
        return from_ns(ns) if isinstance(ns, int) else None
    except (OverflowError, ValueError):
        return None
