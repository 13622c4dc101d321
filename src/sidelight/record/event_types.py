"""The catalogue: event types with models of what they carry."""

from __future__ import annotations

import builtins
import inspect
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

import msgspec
from pydantic import BaseModel, ValidationError

from sidelight.exceptions import CatalogueError, PayloadError
from sidelight.record.format import CUT, FRAME, Moment, Static, decode
from sidelight.record.names import is_type_name

_M = TypeVar("_M", bound=type[BaseModel])


class Declared(msgspec.Struct, frozen=True):
    """An event type of a catalogue.

    Attributes:
        name: of the type.
        payload: the model of its attributes; `artifact_id` and `organization_id` are among them
            where the model has them.
        emitted_by: paths of the functions that emit it, as far as they were named.
    """

    name: str
    payload: type[BaseModel]
    emitted_by: tuple[str, ...] = ()

    @property
    def description(self) -> str:
        """The docstring of the payload; "" where it has none of its own."""
        told = self.payload.__doc__
        return inspect.cleandoc(told) if told and told != BaseModel.__doc__ else ""

    def problem(self, moment: Moment) -> str | None:
        """What is not as declared about what was captured; None where all is well."""
        if moment.flags & CUT:  # it has no attributes any more, and says so
            return None
        given = dict(moment.attributes or {})
        for name in ("artifact_id", "organization_id"):
            if name in self.payload.model_fields and (value := getattr(moment, name)) is not None:
                given[name] = value
        try:
            self.payload.model_validate(given)
        except ValidationError as error:
            return "; ".join(
                f"{'.'.join(map(str, each['loc'])) or 'payload'}: {each['msg']}"
                for each in error.errors(include_url=False)
            )
        return None


class Catalogue:
    """Event types with models of what they carry.

    ::

        @sidelight.catalogue.event("artifact_received", emitted_by="shop.artifacts:create")
        class ArtifactReceived(BaseModel):
            seconds: float | None
            size: int

    An event of a declared type is held against its model: in strict mode at emission, where it is
    raised; otherwise by the relay, which stores it, marks it (attribute ``sidelight.invalid``) and
    counts it. Values are compared in their plain form: a number that came as text will do.
    """

    def __init__(self) -> None:
        self._declared: dict[str, Declared] = {}

    def event(
        self,
        type: str,  # noqa: A002  # the word for it
        *,
        emitted_by: str | tuple[str, ...] = (),
    ) -> Callable[[_M], _M]:
        """Declare an event type; decorates the pydantic model of its payload.

        Args:
            type: the name, as points emit it.
            emitted_by: path or paths of functions, ``package.module:Class.method``.

        Raises:
            CatalogueError: it is no name for a type, no model, or declared already.
        """
        if not is_type_name(type):
            raise CatalogueError(
                what=repr(type),
                problem="it is no name for an event type",
                remedy="use letters, digits and _ . - and begin with a letter",
            )
        paths = (emitted_by,) if isinstance(emitted_by, str) else tuple(emitted_by)

        def declare(payload: _M) -> _M:
            if not (isinstance(payload, builtins.type) and issubclass(payload, BaseModel)):
                raise CatalogueError(
                    what=type,
                    problem=f"{payload!r} is no pydantic model",
                    remedy="let the class inherit from pydantic.BaseModel",
                )
            known = self._declared.get(type)
            if known is not None and _path(known.payload) != _path(payload):
                raise CatalogueError(
                    what=type,
                    problem=f"it is declared already, by {_path(known.payload)}",
                    remedy="declare it once",
                )
            self._declared[type] = Declared(type, payload, paths)
            return payload

        return declare

    def get(self, type: str | None) -> Declared | None:  # noqa: A002
        """What is declared of a type; None where nothing is."""
        return self._declared.get(type or "")

    def problem(self, static: Static, moment: Moment) -> str | None:
        """What is not as declared about a record; None where all is well, or nothing declared."""
        declared = self.get(static.type)
        return None if declared is None else declared.problem(moment)

    def json_schema(self) -> dict[str, Any]:
        """The payloads as one JSON Schema (2020-12), a definition for each type."""
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$defs": {each.name: each.payload.model_json_schema() for each in self},
        }

    def clear(self) -> None:
        """Forget all that was declared."""
        self._declared.clear()

    def __iter__(self) -> Iterator[Declared]:
        return iter(sorted(self._declared.values(), key=lambda each: each.name))

    def __len__(self) -> int:
        return len(self._declared)


class Checked:
    """A spool for strict mode: what is not as declared is not written, and raised.

    It decodes each record again: nothing for production.
    """

    def __init__(self, spool: Any) -> None:
        self._spool = spool
        self.position: Callable[[], tuple[int, int]] = spool.position

    def write(self, frame: bytes, /) -> None:
        """Copy a frame in.

        Raises:
            PayloadError: the event is not as it is declared.
        """
        check(frame)
        self._spool.write(frame)

    def append(self, frame: bytes, /) -> None:
        """Copy a frame in, making room for it."""
        self._spool.append(frame)


def check(frame: bytes) -> None:
    """Hold a frame's event against the process's catalogue.

    Raises:
        PayloadError: it is not as it is declared.
    """
    if not len(catalogue):
        return
    static, moment = decode(frame[FRAME.size :])
    if problem := catalogue.problem(static, moment):
        raise PayloadError(type=static.type, problem=problem)


def _path(model: builtins.type) -> str:
    return f"{model.__module__}:{model.__qualname__}"


catalogue: Final = Catalogue()
"""The catalogue of this process."""
