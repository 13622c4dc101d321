"""The timeline of an artifact as a picture: each event at its place in time, calls as bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from sidelight.cli.output import (
    LOOKS,
    attributes,
    clean,
    duration,
    last_column_fills,
    moment,
    outcome_symbol,
    plural,
)
from sidelight.store import Event, from_ns

_LEAST: Final = 12  # cells in which a bar still says something
_MOST: Final = 60
_CUT: Final = 0.1  # of the busy time: so long are pauses drawn that are longer than it


@dataclass(frozen=True, slots=True)
class Stretch:
    """Where an event lies: the call from ``begin`` to ``end``; ``until`` goes on to what followed.

    All in nanoseconds since 1970. ``until`` equals ``end`` but for calls that were only seen to
    start: they are drawn dotted up to their end or, where that is no event, to the next event.
    """

    begin: int
    end: int
    until: int


class Axis:
    """Nanoseconds to cells, with long pauses cut short.

    Attributes:
        cut: for each pause that is not drawn in its length: where it ends → how long it is (ns).
    """

    def __init__(self, stretches: Sequence[Stretch], cells: int) -> None:
        busy = _merged(stretches)
        total = sum(end - begin for begin, end in busy)
        self.cut: dict[int, int] = {}
        self._knots: list[tuple[int, int]] = []  # (time, place)
        place, before = 0, None
        for begin, end in busy:
            if before is not None:
                pause = begin - before
                if pause > total > 0:
                    self.cut[begin] = pause
                    pause = int(total * _CUT)
                place += pause
            self._knots.append((begin, place))
            place += end - begin
            self._knots.append((end, place))
            before = end
        self._scale = cells / place if place else 0.0

    def __call__(self, ns: int) -> float:
        """Where a time lies, in cells from the left. Only times within a stretch have a place."""
        time, place = max((k for k in self._knots if k[0] <= ns), default=self._knots[0])
        return (place + ns - time) * self._scale


def _merged(stretches: Sequence[Stretch]) -> list[tuple[int, int]]:
    """The times in which something went on."""
    merged: list[tuple[int, int]] = []
    for begin, end in sorted((s.begin, s.until) for s in stretches):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return merged


def stretches_of(events: Sequence[Event]) -> list[Stretch]:
    """Where each event of a timeline lies."""
    ends: dict[tuple[str | None, str | None], int] = {
        (event.trace_id, event.span_id): event.occurred_ns
        for event in events
        if event.span_id is not None and event.duration_ns is not None
    }
    stretches = []
    for index, event in enumerate(events):
        until = event.occurred_ns
        if event.outcome == "started":
            following = events[index + 1].started_ns if index + 1 < len(events) else until
            until = max(until, ends.get((event.trace_id, event.span_id), following))
        stretches.append(Stretch(event.started_ns, event.occurred_ns, until))
    return stretches


class Picture:
    """A rich renderable of one artifact's events: in order, and at least one of them."""

    def __init__(self, artifact_id: str, events: Sequence[Event]) -> None:
        self.artifact_id = artifact_id
        self.events = events
        self.stretches = stretches_of(events)
        self.first = min(stretch.begin for stretch in self.stretches)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Lay out heading, rows and legend for the width that there is."""
        offsets = [_offset(event.occurred_ns - self.first) for event in self.events]
        names = [Text(clean(event.type)) for event in self.events]
        lengths = [
            Text(duration(event.duration_ns))
            if stretch.until == event.occurred_ns
            else Text(duration(stretch.until - stretch.begin), style="dim")
            for event, stretch in zip(self.events, self.stretches, strict=True)
        ]
        taken = 11 + sum(max(cell_len(str(t)) for t in each) for each in (offsets, names, lengths))
        room = options.max_width - taken
        detailed = room >= 2 * _LEAST + 20
        cells = min(_MOST, room * 3 // 5 if detailed else room)
        bars = cells >= _LEAST

        rows = Table.grid(padding=(0, 2, 0, 0))
        rows.add_column(justify="right", style="dim", no_wrap=True)
        rows.add_column(no_wrap=not options.max_width < taken, overflow="fold")
        if bars:
            rows.add_column(no_wrap=True, width=cells)
        rows.add_column(justify="right", no_wrap=True)
        if detailed:
            rows.add_column()
            last_column_fills(rows, console)
        axis = Axis(self.stretches, max(cells, 1))
        for event, stretch, offset, name, length in zip(
            self.events, self.stretches, offsets, names, lengths, strict=True
        ):
            if (pause := axis.cut.pop(stretch.begin, None)) is not None:
                rows.add_row("⋮", Text(f"{duration(pause)} later", style="dim italic"))
            symbol = outcome_symbol(event)
            name.stylize("bold red" if event.outcome == "failed" else "bold")
            row: list[RenderableType] = [offset, Text.assemble(symbol, " ", name)]
            if bars:
                row.append(_bar(event, stretch, axis, cells))
            row.append(length)
            if detailed:
                row.append(attributes(event))
            rows.add_row(*row)
        yield self._heading()
        yield Text()
        yield rows

    def _heading(self) -> Text:
        owner = next((e.organization_id for e in self.events if e.organization_id), None)
        begin = from_ns(self.first)
        end = self.events[-1].occurred_at
        heading = Text()
        heading.append(clean(self.artifact_id), style="bold")
        heading.append(f" · {clean(owner)}" if owner else " · no organization")
        heading.append(f" · {plural(len(self.events), 'event')}")
        heading.append(f" · {duration(self.events[-1].occurred_ns - self.first)}")
        heading.append(f"\n{moment(begin)} to {moment(end, today=begin.date())} UTC", style="dim")
        return heading


def _offset(ns: int) -> str:
    return f"+{duration(ns)}" if ns else "0"


def _bar(event: Event, stretch: Stretch, axis: Axis, cells: int) -> Text:
    """A line of so many cells, in half cells: the call, or a mark where there was only a moment."""
    colour = LOOKS[event.outcome][1]
    left = min(round(2 * axis(stretch.begin)), 2 * cells - 1)
    right = min(max(round(2 * axis(stretch.until)), left + 1), 2 * cells)
    if event.duration_ns is None:
        cell = left // 2
        dotted = "┄" * ((right + 1) // 2 - cell - 1)
        return Text.assemble(" " * cell, outcome_symbol(event), (dotted, f"dim {colour}"))
    bar = "".join(
        _HALVES[left <= half < right, left <= half + 1 < right] for half in range(0, 2 * cells, 2)
    )
    return Text(bar.rstrip(), style=colour)


_HALVES: Final = {
    (False, False): " ",
    (True, False): "╸",
    (False, True): "╺",
    (True, True): "━",
}
