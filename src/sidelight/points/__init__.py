"""A decorator's arguments become a wrapper, at decoration.

In order: arguments, declaration, generated code, wrapper. Nothing is decided at the call that was
known at decoration; a mistake in the arguments fails on import.
"""

from sidelight.points.callables import Phase
from sidelight.points.declaration import Declaration, check_fields, declare
from sidelight.points.decorator import emits, instrument, instrumentation_of
from sidelight.points.direct_emit import emit
from sidelight.points.expressions import (
    ROOTS,
    Choice,
    Expression,
    arg,
    choose,
    error,
    is_computed,
    parts,
    result,
)
from sidelight.points.registry import POINTS, Point
from sidelight.points.signature import Signature

__all__ = [
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
    "result",
]
