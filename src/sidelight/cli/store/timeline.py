"""`sidelight timeline`: draw the events of an artifact at their places in time, calls as bars."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from sidelight.cli.options import (
    AsJson,
    EventFilters,
    StoreUrl,
    filtered,
)
from sidelight.cli.output import (
    attributes,
    clean,
    complain,
    console,
    outcome_look,
    outcome_symbol,
    print_json,
    remark,
)
from sidelight.cli.palette import GREY, RED
from sidelight.cli.spool.waiting import remark_waiting
from sidelight.cli.store.unknown import remark_unknown, require_artifact
from sidelight.cli.tables import broken
from sidelight.store import (
    Axis,
    Event,
    Store,
    Stretch,
    duration,
    from_ns,
    moment,
    plural,
    stretches_of,
)

_SVG_WIDTH: Final = 110  # columns
_SHORTEST_AXIS: Final = 12  # columns in which a bar still tells something
_LONGEST_AXIS: Final = 60


@filtered
def timeline(
    artifact: Annotated[
        str, typer.Argument(metavar="ARTIFACT", help="The artifact's id.", show_default=False)
    ],
    *,
    store: StoreUrl = None,
    filters: EventFilters,
    svg: Annotated[
        Path | None,
        typer.Option("--svg", metavar="FILE", help="Write the picture to this SVG file instead."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Draw the events of an artifact: when they occurred, how long calls took, how they ended.

    Each line is an event; its bar is the call that emitted the event. A dotted line is a call whose
    start alone was recorded: it ends where the next event begins. Long pauses are cut short, and
    the picture says how long they were; all else has one scale. Attributes stand behind the bars,
    or below their event where the terminal is narrow.

    Examples:
      sidelight timeline 7d0c5f2e

      sidelight timeline 7d0c5f2e --svg timeline.svg
    """
    with Store(store) as opened:
        require_artifact(opened, store, artifact)
        found = opened.timeline(artifact, **filters)
        remark_unknown(opened, filters=filters)
        url = opened.url
    remark_waiting(store)
    if as_json:
        print_json(found)
    elif not found:
        remark(f"{url} holds no such events")
    elif svg is None:
        out, picture = console(), Picture(artifact, found)
        out.print(picture)
        if not picture.barred:
            remark(f"no room for bars at {out.width} columns")
    else:
        _write_svg(svg, artifact, found)


def _write_svg(path: Path, artifact: str, events: Sequence[Event]) -> None:
    drawn = Console(
        record=True,
        file=io.StringIO(),
        width=_SVG_WIDTH,
        force_terminal=True,
        color_system="truecolor",
    )
    drawn.print(Picture(artifact, events))
    try:
        drawn.save_svg(str(path), title=f"sidelight timeline {clean(artifact)}")
    except OSError as error:
        complain(f"cannot write {path}: {error.strerror}; name another file")
        raise typer.Exit(1) from error


# -- the drawing -----------------------------------------------------------------------------


class Picture:
    """The events of one artifact as a rich renderable.

    Args:
        artifact_id: of all events.
        events: in their order; at least one.
    """

    def __init__(self, artifact_id: str, events: Sequence[Event]) -> None:
        self.artifact_id = artifact_id
        self.events = events
        self.stretches = stretches_of(events)
        self.first = min(stretch.begin for stretch in self.stretches)
        self.barred = True
        """Whether the width had room for bars."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Lay out heading and lines for the width that there is."""
        yield self._heading()
        yield Text()
        yield from self._lines(options.max_width)

    def _heading(self) -> Text:
        owners = sorted({e.organization_id for e in self.events if e.organization_id})
        begin = from_ns(self.first)
        end = self.events[-1].occurred_at
        heading = Text()
        heading.append(clean(self.artifact_id), style="bold")
        heading.append(f" · {', '.join(map(clean, owners)) or 'no organization'}")
        heading.append(f" · {plural(len(self.events), 'event')}")
        heading.append(f" · {duration(self.events[-1].occurred_ns - self.first)}")
        heading.append(f"\n{moment(begin)} to {moment(end, today=begin.date())} UTC", style=GREY)
        return heading

    def _lines(self, width: int) -> Iterator[Text]:
        offsets = [self._offset(event) for event in self.events]
        names = [_name(event) for event in self.events]
        lengths = [*map(_length, self.events, self.stretches)]
        left, middle, right = (max(t.cell_len for t in each) for each in (offsets, names, lengths))
        details = [*map(attributes, self.events)]
        longest = max(each.cell_len for each in details)
        room = width - left - middle - right - 6
        apart = room < -2  # the name has a line of its own, so that it is not broken
        beside = room - longest - 2 >= _SHORTEST_AXIS
        columns = min(_LONGEST_AXIS, room - longest - 2 if beside else room)
        self.barred = columns >= _SHORTEST_AXIS
        axis = Axis(self.stretches, max(columns, 1))
        for event, stretch, offset, name, length, detail in zip(
            self.events, self.stretches, offsets, names, lengths, details, strict=True
        ):
            if (pause := axis.cut.pop(stretch.begin, None)) is not None:
                yield Text(f"{'⋮':>{left}}  {duration(pause)} later", style=GREY)
            offset.align("right", left)
            if not apart:
                name.align("left", middle)
            length.align("right", right)
            if apart:
                yield Text.assemble(offset, "  ", length)
                yield from broken(Text.assemble("  ", name), width)
                yield from _below(detail, 4, width)
                continue
            line = Text.assemble(offset, "  ", name)
            if self.barred:
                bar = _bar(event, stretch, axis, columns)
                bar.align("left", columns)
                line = Text.assemble(line, "  ", bar)
            line = Text.assemble(line, "  ", length)
            if beside:
                line = Text.assemble(line, "  ", detail)
            line.rstrip()
            yield line
            if not beside:
                yield from _below(detail, min(left + 4, width // 3), width)

    def _offset(self, event: Event) -> Text:
        ns = event.occurred_ns - self.first
        return Text(f"+{duration(ns)}" if ns else "0", style=GREY)


def _below(detail: Text, indent: int, width: int) -> Iterator[Text]:
    for line in broken(detail, width - indent) if detail else ():
        yield Text(" " * indent).append(line)


def _name(event: Event) -> Text:
    style = f"bold {RED}" if event.outcome == "failed" else "bold"
    return Text.assemble(outcome_symbol(event), " ", (clean(event.type), style))


def _length(event: Event, stretch: Stretch) -> Text:
    if stretch.until == event.occurred_ns:
        return Text(duration(event.duration_ns))
    return Text(duration(stretch.until - stretch.begin), style=GREY)


def _bar(event: Event, stretch: Stretch, axis: Axis, columns: int) -> Text:
    """Draw a call in half columns; an event without a duration is a symbol."""
    _, colour = outcome_look(event)
    left = min(round(2 * axis(stretch.begin)), 2 * columns - 1)
    right = min(max(round(2 * axis(stretch.until)), left + 1), 2 * columns)
    if event.duration_ns is None:
        column = left // 2
        dotted = "┄" * ((right + 1) // 2 - column - 1)
        return Text.assemble(" " * column, outcome_symbol(event), (dotted, colour))
    bar = "".join(
        _HALVES[left <= half < right, left <= half + 1 < right] for half in range(0, 2 * columns, 2)
    )
    return Text(bar.rstrip(), style=colour)


_HALVES: Final = {
    (False, False): " ",
    (True, False): "╸",
    (False, True): "╺",
    (True, True): "━",
}
