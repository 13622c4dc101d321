"""Points in a file: read and written, woven into functions, checked against code, put into code.

`MapDeclaration` is the one model of a point in all of these. The room loads lazily, because only
programs under a map and the command line need it.
"""

from typing import TYPE_CHECKING

from sidelight.host import lazily

if TYPE_CHECKING:
    from sidelight.maps.bootstrap import bootstrap_directory
    from sidelight.maps.checks import Checks, Difference
    from sidelight.maps.codemod.edits import CodeEdits
    from sidelight.maps.declarations import PHASES, MapDeclaration
    from sidelight.maps.listing import ListedPoint, listed_point
    from sidelight.maps.private_names import resolved
    from sidelight.maps.reader import Map, read_map
    from sidelight.maps.static.decorated import Reading, read_points
    from sidelight.maps.static.event_types import read_event_types
    from sidelight.maps.static.functions import (
        FoundFunction,
        MissingFunction,
        SourceFunctions,
        UnknownFunction,
    )
    from sidelight.maps.static.modules import relative_place
    from sidelight.maps.static.names import Codebase
    from sidelight.maps.weaving import weave, weaving_errors
    from sidelight.maps.writer import map_text, omissions

__all__ = [
    "PHASES",
    "Checks",
    "CodeEdits",
    "Codebase",
    "Difference",
    "FoundFunction",
    "ListedPoint",
    "Map",
    "MapDeclaration",
    "MissingFunction",
    "Reading",
    "SourceFunctions",
    "UnknownFunction",
    "bootstrap_directory",
    "listed_point",
    "map_text",
    "omissions",
    "read_event_types",
    "read_map",
    "read_points",
    "relative_place",
    "resolved",
    "weave",
    "weaving_errors",
]

__getattr__ = lazily(
    __name__,
    {
        "bootstrap": "bootstrap_directory",
        "checks": "Checks Difference",
        "codemod.edits": "CodeEdits",
        "declarations": "PHASES MapDeclaration",
        "listing": "ListedPoint listed_point",
        "private_names": "resolved",
        "reader": "Map read_map",
        "static.decorated": "Reading read_points",
        "static.event_types": "read_event_types",
        "static.functions": "FoundFunction MissingFunction SourceFunctions UnknownFunction",
        "static.modules": "relative_place",
        "static.names": "Codebase",
        "weaving": "weave weaving_errors",
        "writer": "map_text omissions",
    },
)
