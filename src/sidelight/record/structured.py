"""Values of libraries in a plain form: scalars of numpy and pandas, and objects that are data.

A dataclass or a pydantic model is data: its fields become a mapping. A field that its `repr` leaves
out is left out here as well. A class with a ``__repr__`` of its own is no data, because that may
hide a secret. Fields are read from the object's dictionary or slots, never by attribute access,
because an attribute may be a descriptor that sends SQL.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import MemberDescriptorType
from typing import Any, Final

from sidelight.host import imported

ABSENT: Final = object()
"""There is no such value."""


def scalar(kind: type, value: Any) -> Any:
    """Return the value of a scalar of numpy or pandas; `ABSENT` for every other value.

    A moment becomes ISO 8601, a duration seconds, and a missing value None.
    """
    numpy = imported("numpy")
    if numpy is not None and issubclass(kind, numpy.generic):
        return _of_numpy(numpy, kind, value)
    if numpy is not None and issubclass(kind, numpy.ndarray) and value.ndim == 0:
        return value[()]
    pandas = imported("pandas")
    missing = pandas is not None and (value is pandas.NaT or value is pandas.NA)
    return None if missing else ABSENT


def _of_numpy(numpy: Any, kind: type, value: Any) -> Any:
    if issubclass(kind, numpy.bool_):
        return bool(value)
    if not issubclass(kind, numpy.datetime64 | numpy.timedelta64):
        return ABSENT  # a number or a text, which Python's own classes know
    if numpy.isnat(value):
        return None
    if issubclass(kind, numpy.datetime64) or numpy.datetime_data(value)[0] in {"Y", "M"}:
        return str(value)
    return float(value / numpy.timedelta64(1, "s"))


def fields(kind: type, value: Any) -> dict[str, Any] | None:
    """Return the fields of an object that is data; None for every other object."""
    names = _field_names(kind)
    if names is None:
        return None
    try:
        held = object.__getattribute__(value, "__dict__")
    except AttributeError:
        held = {}
    found = {name: held[name] if name in held else _slot(kind, name, value) for name in names}
    return {name: each for name, each in found.items() if each is not ABSENT}


def _field_names(kind: type) -> Iterator[str] | None:
    made_repr = _of_class(kind, "__repr__")
    declared = _of_class(kind, "__dataclass_fields__")
    if declared is not None and hasattr(made_repr, "__wrapped__"):  # as `dataclass` makes it
        return (f.name for f in declared.values() if f.repr and f._field_type.name == "_FIELD")  # noqa: SLF001
    pydantic = imported("pydantic.main")
    if pydantic is not None and issubclass(kind, pydantic.BaseModel):
        for name in ("__repr__", "__repr_args__"):
            if _of_class(kind, name) is not _of_class(pydantic.BaseModel, name):
                return None
        declared = _of_class(kind, "__pydantic_fields__") or _of_class(kind, "model_fields")
        return (name for name, f in declared.items() if f.repr and not f.exclude)
    return None


def _of_class(kind: type, name: str) -> Any:
    """Return an attribute of a class, past its metaclass and every descriptor."""
    return next((each.__dict__[name] for each in kind.__mro__ if name in each.__dict__), None)


def _slot(kind: type, name: str, value: Any) -> Any:
    slot = _of_class(kind, name)
    if type(slot) is not MemberDescriptorType:
        return ABSENT
    try:
        return slot.__get__(value)
    except AttributeError:  # it holds nothing
        return ABSENT
