"""Points in a file: read and written, woven into functions, checked against code, put into code.

Loaded lazily, because only programs under a map and the command line need it.
"""

from typing import TYPE_CHECKING

from sidelight.host import lazily

if TYPE_CHECKING:
    from sidelight.maps.bootstrap import bootstrap_directory
    from sidelight.maps.codemod.plan import Plan
    from sidelight.maps.described import PHASES, Described, Found, Unsaid, of_code, spelled
    from sidelight.maps.read import read_map
    from sidelight.maps.static.checks import Checks
    from sidelight.maps.static.events import read_events
    from sidelight.maps.static.files import near
    from sidelight.maps.static.functions import Functions, Gone, Seen, Unseen
    from sidelight.maps.static.names import Codebase
    from sidelight.maps.static.points import Reading, read_points
    from sidelight.maps.weaving import weave
    from sidelight.maps.write import losses, written

__all__ = [
    "PHASES",
    "Checks",
    "Codebase",
    "Described",
    "Found",
    "Functions",
    "Gone",
    "Plan",
    "Reading",
    "Seen",
    "Unsaid",
    "Unseen",
    "bootstrap_directory",
    "losses",
    "near",
    "of_code",
    "read_events",
    "read_map",
    "read_points",
    "spelled",
    "weave",
    "written",
]

__getattr__ = lazily(
    __name__,
    {
        "bootstrap": "bootstrap_directory",
        "codemod.plan": "Plan",
        "described": "PHASES Described Found Unsaid of_code spelled",
        "read": "read_map",
        "static.checks": "Checks",
        "static.events": "read_events",
        "static.files": "near",
        "static.functions": "Functions Gone Seen Unseen",
        "static.names": "Codebase",
        "static.points": "Reading read_points",
        "weaving": "weave",
        "write": "losses written",
    },
)
