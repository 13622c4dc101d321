"""`sidelight timeline`: draw the events of an artifact at their places in time, calls as bars."""

from __future__ import annotations

import difflib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console, ConsoleOptions, RenderResult
from rich.padding import Padding
from rich.text import Text

from sidelight.cli.options import (
    AsJson,
    Failed,
    OfOutcome,
    OfPoint,
    StoreUrl,
    Where,
    filters_of,
)
from sidelight.cli.output import (
    attributes,
    clean,
    complain,
    console,
    duration,
    moment,
    outcome_look,
    outcome_symbol,
    plural,
    print_json,
)
from sidelight.cli.spool.waiting import remark_waiting
from sidelight.store import Event, Store, from_ns

_SVG_WIDTH: Final = 110  # columns
_SHORTEST_AXIS: Final = 12  # columns in which a bar still tells something
_LONGEST_AXIS: Final = 60
_CUT: Final = 0.1  # a pause longer than the busy time is drawn as long as this share of it


def timeline(
    artifact: Annotated[
        str, typer.Argument(metavar="ARTIFACT", help="The artifact's id.", show_default=False)
    ],
    *,
    store: StoreUrl = None,
    where: Where = None,
    point: OfPoint = None,
    outcome: OfOutcome = None,
    failed: Failed = False,
    svg: Annotated[
        Path | None,
        typer.Option("--svg", metavar="FILE", help="Write the picture to this SVG file instead."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Draw the events of an artifact: when they occurred, how long calls took, how they ended.

    Each line is an event; its bar is the call that emitted the event. A dotted line is a call whose
    start alone was recorded: it ends where the next event begins. Long pauses are cut short, and
    the picture says how long they were. Attributes stand behind the bars, or below their event
    where the terminal is narrow.

    Examples:
      sidelight timeline 7d0c5f2e

      sidelight timeline 7d0c5f2e --svg timeline.svg
    """
    with Store(store) as opened:
        filters = filters_of(None, where, point, outcome, failed=failed)
        found = opened.timeline(artifact, **filters)
        remark_waiting(store)
        if not found:
            known = [each.artifact_id for each in opened.artifacts(limit=1000)]
            close = difflib.get_close_matches(artifact, known, n=1)
            hint = f"did you mean {close[0]}?" if close else "`sidelight artifacts` lists them"
            complain(f"{opened.url} holds no events of the artifact {artifact}; {hint}")
            raise typer.Exit(1)
    if as_json:
        print_json(found)
    elif svg is None:
        console().print(Picture(artifact, found))
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


# -- places in time --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stretch:
    """The place of an event in time, in nanoseconds since 1970.

    Attributes:
        begin, end: of the call.
        until: equals ``end``, except for a call whose start alone was recorded: where its end was
            recorded, or else where the next event begins.
    """

    begin: int
    end: int
    until: int


def stretches_of(events: Sequence[Event]) -> list[Stretch]:
    """Return the place of each event of a timeline."""
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


class Axis:
    """Map nanoseconds to columns of the terminal, and cut long pauses short.

    Attributes:
        cut: the length (ns) of each pause that was cut, by the time at which it ends.
    """

    def __init__(self, stretches: Sequence[Stretch], columns: int) -> None:
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
        self._scale = columns / place if place else 0.0

    def __call__(self, ns: int) -> float:
        """Return the place of a time that lies within a stretch, in columns from the left."""
        time, place = max((k for k in self._knots if k[0] <= ns), default=self._knots[0])
        return (place + ns - time) * self._scale


def _merged(stretches: Sequence[Stretch]) -> list[tuple[int, int]]:
    """Merge the stretches that touch or overlap."""
    merged: list[tuple[int, int]] = []
    for begin, end in sorted((s.begin, s.until) for s in stretches):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return merged


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

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Lay out heading and lines for the width that there is."""
        yield self._heading()
        yield Text()
        yield from self._lines(options.max_width)

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

    def _lines(self, width: int) -> Iterator[Text | Padding]:
        offsets = [self._offset(event) for event in self.events]
        names = [_name(event) for event in self.events]
        lengths = [*map(_length, self.events, self.stretches)]
        left, middle, right = (max(t.cell_len for t in each) for each in (offsets, names, lengths))
        details = [*map(attributes, self.events)]
        longest = max(each.cell_len for each in details)
        room = width - left - middle - right - 6
        beside = room - longest - 2 >= _SHORTEST_AXIS
        columns = min(_LONGEST_AXIS, room - longest - 2 if beside else room)
        axis = Axis(self.stretches, max(columns, 1))
        for event, stretch, offset, name, length, detail in zip(
            self.events, self.stretches, offsets, names, lengths, details, strict=True
        ):
            if (pause := axis.cut.pop(stretch.begin, None)) is not None:
                yield Text(f"{'⋮':>{left}}  {duration(pause)} later", style="dim")
            offset.align("right", left)
            name.align("left", middle)
            length.align("right", right)
            line = Text.assemble(offset, "  ", name)
            if columns >= _SHORTEST_AXIS:
                bar = _bar(event, stretch, axis, columns)
                bar.align("left", columns)
                line = Text.assemble(line, "  ", bar)
            line = Text.assemble(line, "  ", length)
            if beside:
                line = Text.assemble(line, "  ", detail)
            line.rstrip()
            yield line
            if detail and not beside:
                yield Padding(detail, (0, 0, 0, min(left + 4, width // 3)), expand=False)

    def _offset(self, event: Event) -> Text:
        ns = event.occurred_ns - self.first
        return Text(f"+{duration(ns)}" if ns else "0", style="dim")


def _name(event: Event) -> Text:
    style = "bold red" if event.outcome == "failed" else "bold"
    return Text.assemble(outcome_symbol(event), " ", (clean(event.type), style))


def _length(event: Event, stretch: Stretch) -> Text:
    if stretch.until == event.occurred_ns:
        return Text(duration(event.duration_ns))
    return Text(duration(stretch.until - stretch.begin), style="dim")


def _bar(event: Event, stretch: Stretch, axis: Axis, columns: int) -> Text:
    """Draw a call in half columns; an event without a duration is a symbol."""
    _, colour = outcome_look(event)
    left = min(round(2 * axis(stretch.begin)), 2 * columns - 1)
    right = min(max(round(2 * axis(stretch.until)), left + 1), 2 * columns)
    if event.duration_ns is None:
        column = left // 2
        dotted = "┄" * ((right + 1) // 2 - column - 1)
        return Text.assemble(" " * column, outcome_symbol(event), (dotted, f"dim {colour}"))
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
