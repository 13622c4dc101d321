"""The formats of a listing of points: tree, Mermaid and JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Final

from rich.text import Text
from rich.tree import Tree

from sidelight.cli.output import OUTCOME_LOOKS, clean, console
from sidelight.cli.palette import CYAN, GREY
from sidelight.maps import PHASES, ListedPoint, MapDeclaration, relative_place
from sidelight.points import Phase

_SYMBOLS: Final[Mapping[Phase, tuple[str, str]]] = {
    "start": OUTCOME_LOOKS["started"],
    "success": OUTCOME_LOOKS["succeeded"],
    "failure": OUTCOME_LOOKS["failed"],
}
"""Symbol and colour of each phase."""
_ARROW_LABELS: Final[Mapping[Phase, str]] = {"start": "before", "failure": "if it raises"}


def _by_module(points: Sequence[ListedPoint]) -> Iterator[tuple[str, list[ListedPoint]]]:
    for module, found in groupby(points, key=lambda point: point.module):
        yield module, list(found)


def print_tree(points: Sequence[ListedPoint]) -> None:
    """Print a tree with a branch for each module."""
    out = console()
    for module, found in _by_module(points):
        tree = Tree(Text(clean(module), style="bold"), guide_style=GREY)
        for point in found:
            place = relative_place(f"{point.file}:{point.line}") if point.file else ""
            branch = tree.add(
                Text.assemble((clean(point.qualname), f"bold {CYAN}"), "  ", (clean(place), GREY))
            )
            for declared in point.declarations:
                branch.add(_leaf(declared))
        out.print(tree)


def _leaf(declared: MapDeclaration) -> Text:
    """Mode and events in one line, each value in a separate line."""
    leaf = Text(clean(declared.mode_source), style=GREY)
    for phase in PHASES:
        if types := declared.shown_types(phase):
            shown = (clean(" | ".join(types)), "default")
            leaf.append_text(Text.assemble("  ", _SYMBOLS[phase], " ", shown))
    for name, source in (declared.captured | declared.joined).items():
        leaf.append(f"\n{clean(name)} = {clean(source)}", style=GREY)
    return leaf


def mermaid(points: Sequence[ListedPoint]) -> str:
    """Return a flowchart: the functions, module by module, with an arrow to each event.

    An arrow is thick where the function waits for the store, and dotted for a failure.
    """
    lines = ["flowchart LR"]
    functions = {id(point): f"f{number}" for number, point in enumerate(points)}
    for number, (module, found) in enumerate(_by_module(points)):
        lines.append(f"  subgraph m{number}[{_label(module)}]")
        lines += [f"    {functions[id(point)]}[{_label(point.qualname)}]" for point in found]
        lines.append("  end")
    arrows = [
        (functions[id(point)], _arrow(phase, declared), type_)
        for point in points
        for declared in point.declarations
        for phase in PHASES
        for type_ in declared.shown_types(phase)
    ]
    types = {type_: f"e{n}" for n, type_ in enumerate(dict.fromkeys(each[2] for each in arrows))}
    lines += [f"  {node}([{_label(type_)}])" for type_, node in types.items()]
    lines += [f"  {function} {arrow} {types[type_]}" for function, arrow, type_ in arrows]
    return "\n".join(lines) + "\n"


def _arrow(phase: Phase, declared: MapDeclaration) -> str:
    arrow = "-.->" if phase == "failure" else "==>" if declared.mode == "awaited" else "-->"
    label = _ARROW_LABELS.get(phase)
    return f"{arrow}|{label}|" if label else arrow


def _label(text: str) -> str:
    """Return a label in quotes, in which only quotes, # and < have a meaning."""
    return f'"{text.replace("#", "#35;").replace(chr(34), "#quot;").replace("<", "#lt;")}"'


def json_object(point: ListedPoint) -> dict[str, Any]:
    """Return one point as JSON; the page "cli" of the documentation has its fields."""
    return {
        "point": point.path,
        "file": point.file,
        "line": point.line,
        "kind": point.kind,
        "span": any(declared.span is not False for declared in point.declarations),
        "declarations": [_json_declaration(declared) for declared in point.declarations],
    }


def _json_declaration(declared: MapDeclaration) -> dict[str, Any]:
    return {
        "mode": declared.mode_source,
        "start": _one_or_list(declared.types("start")),
        "success": list(declared.types("success")),
        "failure": _one_or_list(declared.types("failure")),
        "fields": declared.captured,
        **{name: declared.joined.get(name) for name in ("transaction", "after_commit")},
        "unsaid": {
            name: {"source": opaque.source, "why": opaque.reason}
            for name, opaque in declared.opaque.items()
        },
    }


def _one_or_list(types: Sequence[str]) -> str | list[str] | None:
    return list(types) if len(types) > 1 else next(iter(types), None)
