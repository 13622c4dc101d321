"""Points as a picture: Mermaid, which turns text into a flowchart; GitHub and others draw it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from sidelight.maps import PHASES, Described, Found, Unsaid
from sidelight.points import Phase

_SAID: dict[Phase, str] = {"start": "before", "success": "", "failure": "if it raises"}


def flowchart(found: Sequence[Found]) -> str:
    """The functions, module by module, and an arrow to each event that they emit.

    An arrow is thick where the function waits for the store, dotted where it has failed.
    """
    return "\n".join(_lines(found)) + "\n"


def _lines(found: Sequence[Found]) -> Iterator[str]:
    yield "flowchart LR"
    names = {id(point): f"f{number}" for number, point in enumerate(found)}
    for number, (module, points) in enumerate(groupby(found, key=lambda point: point.module)):
        yield f"  subgraph m{number}[{_quoted(module)}]"
        yield from (f"    {names[id(point)]}[{_quoted(point.qualname)}]" for point in points)
        yield "  end"
    arrows: list[tuple[str, Phase, Described, str]] = [
        (names[id(point)], phase, described, type_)
        for point in found
        for described in point.declarations
        for phase in PHASES
        for type_ in _types(described, phase)
    ]
    events: dict[str, str] = {}
    for *_, type_ in arrows:
        if type_ not in events:
            events[type_] = f"e{len(events)}"
            yield f"  {events[type_]}([{_quoted(type_)}])"
    for name, phase, described, type_ in arrows:
        yield f"  {name} {_arrow(phase, described)} {events[type_]}"


def _types(described: Described, phase: Phase) -> Sequence[str]:
    """The event types; where none is known, what the code has in its place."""
    value = getattr(described, phase)
    if isinstance(value, Unsaid) and not value.types:
        return (" ".join(value.source.split()),)
    return described.types(phase)


def _arrow(phase: Phase, described: Described) -> str:
    arrow = "-.->" if phase == "failure" else "==>" if described.mode == "awaited" else "-->"
    return f"{arrow}|{_SAID[phase]}|" if _SAID[phase] else arrow


def _quoted(text: str) -> str:
    """A label: in quotes, where only a quote and a # mean something."""
    return f'"{text.replace("#", "#35;").replace(chr(34), "#quot;").replace("<", "#lt;")}"'
