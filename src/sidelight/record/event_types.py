"""The catalogue: declared event types, each with a pydantic model of its payload."""

from __future__ import annotations

import builtins
import hashlib
import inspect
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import Any, Final, TypeVar

import msgspec
from pydantic import BaseModel, ValidationError

from sidelight.exceptions import CatalogueError, PayloadError, told_at_the_caller
from sidelight.record.expectations import Expectation
from sidelight.record.format import CUT, FRAME, Moment, Static, decode, is_type_name

_M = TypeVar("_M", bound=type[BaseModel])


class Declared(msgspec.Struct, frozen=True):
    """One event type of a catalogue.

    Attributes:
        name: the name of the type.
        payload: the model of the attributes; a model may also declare `artifact_id` and
            `organization_id`.
        emitted_by: paths of the functions that emit the type, as far as they were named.
    """

    name: str
    payload: type[BaseModel]
    emitted_by: tuple[str, ...] = ()

    @property
    def description(self) -> str:
        """The docstring of the model; "" where the model has none of its own."""
        docstring = self.payload.__doc__
        return inspect.cleandoc(docstring) if docstring and docstring != BaseModel.__doc__ else ""

    @property
    def schema_uri(self) -> str:
        """The URI of the payload's JSON Schema; another schema has another one."""
        schema = msgspec.json.encode(self.payload.model_json_schema(), order="sorted")
        version = hashlib.blake2b(schema, digest_size=6).hexdigest()
        return f"urn:sidelight:{self.name}:{version}"

    def problem(self, moment: Moment) -> str | None:
        """Say how an event differs from its declaration; None where it does not."""
        if moment.flags & CUT:  # its attributes were left out
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
    """Declared event types, each with a pydantic model of its payload.

    ::

        @sidelight.catalogue.event("artifact_received", emitted_by="shop.artifacts:create")
        class ArtifactReceived(BaseModel):
            seconds: float | None
            size: int

    An event of a declared type is validated against its model. In strict mode this happens at
    emission, and a mismatch is raised. Otherwise the relay validates: it stores the event, marks it
    (attribute ``sidelight.invalid``) and counts it. Values are validated in their plain form, so a
    number may also be given as text.
    """

    def __init__(self) -> None:
        self._declared: dict[str, Declared] = {}
        self._expected: dict[Expectation, None] = {}

    @told_at_the_caller
    def event(
        self,
        type: str,  # noqa: A002  # the public name
        *,
        emitted_by: str | tuple[str, ...] = (),
    ) -> Callable[[_M], _M]:
        """Declare an event type by decorating the pydantic model of its payload.

        Args:
            type: the name, as points emit it.
            emitted_by: paths of functions that emit it, ``package.module:Class.method``.

        Raises:
            CatalogueError: the name or the model is not valid, or the type is declared twice.
        """
        if not is_type_name(type):
            raise CatalogueError(
                what=repr(type),
                problem="it is not a name for an event type",
                remedy="use letters, digits and _ . - and begin with a letter",
            )
        paths = (emitted_by,) if isinstance(emitted_by, str) else tuple(emitted_by)

        @told_at_the_caller
        def declare(payload: _M) -> _M:
            if not (isinstance(payload, builtins.type) and issubclass(payload, BaseModel)):
                raise CatalogueError(
                    what=type,
                    problem=f"{payload!r} is not a pydantic model",
                    remedy="let the class inherit from pydantic.BaseModel",
                )
            known = self._declared.get(type)
            if known is not None and _path(known.payload) != _path(payload):
                raise CatalogueError(
                    what=type,
                    problem=f"it is already declared, by {_path(known.payload)}",
                    remedy="declare it once",
                )
            self._declared[type] = Declared(type, payload, paths)
            return payload

        return declare

    @told_at_the_caller
    def expect(
        self, *, after: str, one_of: str | Iterable[str], within: timedelta | str
    ) -> Expectation:
        """Declare what is to happen to every artifact; `sidelight overdue` tells where it did not.

        Args:
            after: the type of the event that begins the wait: the artifact's first one.
            one_of: the types of the events that end the wait.
            within: how long the wait may be: a timedelta, or text such as "10m".

        Raises:
            CatalogueError: an argument is not valid.
        """
        named = one_of if isinstance(one_of, str) else tuple(one_of)
        try:
            expected = Expectation.model_validate(
                {"after": after, "one_of": named, "within": within}
            )
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            problem, _, remedy = first["msg"].removeprefix("Value error, ").partition("; ")
            raise CatalogueError(
                what=f"expect: {'.'.join(map(str, first['loc']))}",
                problem=problem,
                remedy=remedy or 'write after="received", one_of=["completed"], within="10m"',
            ) from error
        self._expected[expected] = None
        return expected

    @property
    def expectations(self) -> list[Expectation]:
        """What was declared with `expect`, in this order."""
        return list(self._expected)

    def get(self, type: str | None) -> Declared | None:  # noqa: A002
        """Find the declaration of a type; None where there is none."""
        return self._declared.get(type or "")

    def problem(self, static: Static, moment: Moment) -> str | None:
        """Say how a record differs from its declaration; None where it does not or has none."""
        declared = self.get(static.type)
        return None if declared is None else declared.problem(moment)

    def json_schema(self) -> dict[str, Any]:
        """Write the payloads as one JSON Schema (2020-12), with a definition for each type."""
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$defs": {each.name: each.payload.model_json_schema() for each in self},
        }

    def clear(self) -> None:
        """Forget all declarations."""
        self._declared.clear()
        self._expected.clear()

    def __iter__(self) -> Iterator[Declared]:
        return iter(sorted(self._declared.values(), key=lambda each: each.name))

    def __len__(self) -> int:
        return len(self._declared)


class CheckedSpool:
    """A spool for strict mode that raises on an undeclared payload instead of writing it.

    It decodes each record again, which is too slow for production.
    """

    def __init__(self, spool: Any) -> None:
        self._spool = spool
        self.position: Callable[[], tuple[int, int]] = spool.position

    def write(self, frame: bytes, /) -> None:
        """Validate a frame, then write it.

        Raises:
            PayloadError: the event differs from its declaration.
        """
        validate_frame(frame)
        self._spool.write(frame)

    def append(self, frame: bytes, /) -> None:
        """Append a frame that was validated, and make room for it."""
        self._spool.append(frame)


def validate_frame(frame: bytes) -> None:
    """Validate the event in a frame against the catalogue of this process.

    Raises:
        PayloadError: the event differs from its declaration.
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
