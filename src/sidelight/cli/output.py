"""Print answers: consoles, tables, and the text of names and attributes."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from sidelight.host import monotonic
from sidelight.store import from_ns, moment

if TYPE_CHECKING:
    from sidelight.store import Event

T = TypeVar("T")

_SHOW_PROGRESS_AFTER: Final = 1.0  # seconds
_PIPED_WIDTH: Final = 10_000  # columns: nothing is cut or folded in a pipe
_SHORTEST_CELL: Final = 24  # columns: what may remain of a cell that is cut
_NONE: Final = "·"
_GAP: Final = 3  # columns between two columns of a table

OUTCOME_LOOKS: Final[Mapping[str, tuple[str, str]]] = {
    "started": ("▸", "blue"),
    "succeeded": ("✓", "green"),
    "failed": ("✗", "red"),
    "closed": ("◂", "yellow"),
    "abandoned": ("⊘", "red"),
    "emitted": ("•", "cyan"),
}
"""Symbol and colour of each outcome."""
_OTHER_LOOK: Final = ("?", "magenta")


# -- where text goes -------------------------------------------------------------------------


def console() -> Console:
    """Return the console for answers: stdout."""
    piped = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(width=_PIPED_WIDTH if piped else None, highlight=False, emoji=False)


def complain(message: object) -> None:
    """Print an error on stderr."""
    _to_stderr(message, "red")


def remark(message: object) -> None:
    """Print a note on stderr, which is neither an answer nor an error."""
    _to_stderr(message, "dim")


def remark_left_out(what: str, left_out: datetime | None) -> None:
    """Tell on stderr what a time limit left out of an answer, if anything."""
    if left_out is not None:
        remark(
            f"{what} before {moment(left_out)} UTC were not examined;"
            " --time-limit SECONDS takes more time"
        )


def _to_stderr(message: object, style: str) -> None:
    Console(stderr=True, highlight=False, emoji=False).print(
        Text(clean(str(message), keep="\n"), style=style), soft_wrap=True
    )


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


# -- tables ----------------------------------------------------------------------------------


def table(*headings: str, right: Iterable[str] = ()) -> Table:
    """Return an empty table; the columns in ``right`` are right-aligned numbers."""
    made = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, show_edge=False)
    for heading in headings:
        if heading in right:
            made.add_column(heading, justify="right", no_wrap=True)
        else:
            made.add_column(heading, overflow="fold")
    return made


def width_of(columns: Mapping[str, Sequence[Text]]) -> int:
    """Return how many columns of the terminal a table of these columns needs."""
    widest = (
        max([len(head), *(cell.cell_len for cell in cells)]) for head, cells in columns.items()
    )
    return sum(widest) + _GAP * (len(columns) - 1)


def print_table(
    columns: Mapping[str, Sequence[Text]],
    *,
    right: Iterable[str] = (),
    whole: Collection[str] = (),
    optional: Iterable[str] = (),
) -> None:
    """Print columns as a table. A cell that is too wide continues on the next line.

    Args:
        columns: the cells of each column, by heading.
        right: the columns that hold numbers.
        whole: the columns whose cells stay on one line, unless the terminal is narrow.
        optional: the columns to leave out, the first one first, until the others have room; stderr
            says so. The first one may be cut instead, if 24 characters of it remain.
    """
    out = console()
    kept, left_out = dict(columns), []
    for at, name in enumerate(optional):
        if not at and _cut_to_fit(kept, name, out.width):
            break
        if width_of(kept) > out.width and any(cell.plain.strip(_NONE) for cell in kept.pop(name)):
            left_out.append(name)
    rows = table(*kept, right=right)
    for column in rows.columns:
        natural = width_of({(name := str(column.header)): kept[name]})
        if name in whole and natural <= out.width * 3 // 5 and out.width >= 60:
            column.width = natural
    for row in zip(*kept.values(), strict=True):
        rows.add_row(*row)
    out.print(rows)
    if left_out:
        remark(f"no room for {' and '.join(left_out)} at {out.width} columns; --json shows all")


def _cut_to_fit(columns: Mapping[str, Sequence[Text]], name: str, width: int) -> bool:
    """Cut the cells of a column, so that the table fits; False where too little would remain."""
    room = width - width_of({**columns, name: []}) + len(name)
    if room < _SHORTEST_CELL:
        return False
    for cell in columns[name]:
        cell.truncate(room, overflow="ellipsis")
    return True


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
    return Text(_NONE, style="dim") if text is None else Text(clean(text), style=style)


def outcome_look(event: Event) -> tuple[str, str]:
    """Return the symbol and the colour of an event's outcome."""
    return OUTCOME_LOOKS.get(event.outcome, _OTHER_LOOK)


def outcome_symbol(event: Event) -> Text:
    """Return the outcome as one coloured character."""
    symbol, colour = outcome_look(event)
    return Text(symbol, style=colour)


def attributes(event: Event) -> Text:
    """Return the attributes in one line; those of an error come first."""
    shown = Text()
    for name, value in sorted(event.attributes.items(), key=lambda item: item[0] != "error.type"):
        style = "red" if name.startswith("error.") else "dim"
        shown.append(" " if shown else "")
        shown.append(f"{clean(name)}=", style="dim")
        shown.append(clean(value if isinstance(value, str) else _json(value)), style=style)
    return shown


def time_of(ns: object) -> datetime | None:
    """Convert nanoseconds since 1970 that come from a file; None where they are no time."""
    try:
        return from_ns(ns) if isinstance(ns, int) else None
    except (OverflowError, ValueError):
        return None
