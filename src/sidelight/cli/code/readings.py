"""The two readings of some code: its source alone, and what importing it shows."""

from __future__ import annotations

from collections.abc import Sequence

from sidelight.cli.code.importing import import_all, is_file, look_here
from sidelight.cli.output import stdout_kept_clean
from sidelight.maps import Codebase, Found, Reading, of_code, read_points
from sidelight.points import POINTS
from sidelight.settings import disabled


def read(modules: Sequence[str], code: Codebase | None = None) -> Reading:
    """Read the source of modules and packages, and run nothing; ``code`` is what was read yet."""
    look_here(source=True)
    files = [name for name in modules if is_file(name)]
    names = [name for name in modules if name not in files]
    code = code or Codebase(name.partition(".")[0] for name in names)
    reading = read_points(code, names)
    reading.problems += [
        f"{name} is a file; name the module, as in an import statement" for name in files
    ]
    return reading


def hidden(points: Sequence[Found]) -> list[str]:
    """What the source of these points does not show, one line each."""
    return [
        f"{point.path}: {name} = {unsaid.source}: {unsaid.why}"
        for point in points
        for described in point.declarations
        for name, unsaid in described.unsaid.items()
        if unsaid.hidden
    ]


def imported(modules: Sequence[str]) -> Reading:
    """Import modules and packages, and see which points that has left."""
    if disabled():
        return Reading(
            problems=["SIDELIGHT_DISABLED is set: the decorators leave no points; unset it"]
        )
    with stdout_kept_clean():
        problems = import_all(modules)
    inside = tuple(f"{name}." for name in modules)
    found = [point for point in POINTS if f"{point.module}.".startswith(inside)]
    found.sort(key=lambda point: (point.file or "", point.line or 0))
    return Reading(points=[of_code(point) for point in found], problems=problems)
