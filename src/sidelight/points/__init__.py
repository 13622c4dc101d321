"""A decorator's arguments become a wrapper, at decoration.

In order: the arguments (`expressions`, `decorator`), the checked declaration (`declaration`), its
fields as source (`signature`, `fields`), the generated code (`callables`, `templates`, `codegen`,
`phases`, `namespace`), the wrapper (`wrapper`, `proxies`). A call decides nothing that was known at
decoration; a mistake in the arguments fails on import.
"""

from typing import TYPE_CHECKING

from sidelight.host import lazily

if TYPE_CHECKING:
    from sidelight.points.declaration import EVENT_PHASES, OPTIONS, Declaration, declare
    from sidelight.points.decorator import emits
    from sidelight.points.direct_emit import emit
    from sidelight.points.expressions import (
        ROOTS,
        Choice,
        Expression,
        Phase,
        arg,
        choose,
        error,
        is_computed,
        parts,
        result,
    )
    from sidelight.points.fields import check_fields
    from sidelight.points.instrumentation import instrument, instrumentation_of, path_of
    from sidelight.points.registry import POINTS, Point
    from sidelight.points.signature import Signature

__all__ = [
    "EVENT_PHASES",
    "OPTIONS",
    "POINTS",
    "ROOTS",
    "Choice",
    "Declaration",
    "Expression",
    "Phase",
    "Point",
    "Signature",
    "arg",
    "check_fields",
    "choose",
    "declare",
    "emit",
    "emits",
    "error",
    "instrument",
    "instrumentation_of",
    "is_computed",
    "parts",
    "path_of",
    "result",
]

#: Importing the decorator takes a tenth of the time that importing what a point needs takes.
__getattr__ = lazily(
    __name__,
    {
        "declaration": "EVENT_PHASES OPTIONS Declaration declare",
        "decorator": "emits",
        "direct_emit": "emit",
        "expressions": "ROOTS Choice Expression Phase arg choose error is_computed parts result",
        "fields": "check_fields",
        "instrumentation": "instrument instrumentation_of path_of",
        "registry": "POINTS Point",
        "signature": "Signature",
    },
)
