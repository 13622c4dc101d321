"""Expectations: after an event of one type, an event of another within some time."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from sidelight.record.durations import checked_duration
from sidelight.record.format import is_type_name


def _type_name(name: str) -> str:
    if not is_type_name(name):
        raise ValueError(
            f"{name!r} is no event type; use letters, digits and _ . - and begin with a letter"
        )
    return name


def _names(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


class Expectation(BaseModel):
    """What is to happen to every artifact that has an event of one type.

    Attributes:
        after: the type of the event that begins the wait: the artifact's first one.
        one_of: the types of the events that end it.
        within: how long the wait may be.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    after: str
    one_of: Annotated[tuple[str, ...], BeforeValidator(_names), Field(min_length=1)]
    within: Annotated[timedelta, BeforeValidator(checked_duration)]

    @field_validator("after")
    @classmethod
    def _check_after(cls, name: str) -> str:
        return _type_name(name)

    @field_validator("one_of")
    @classmethod
    def _check_one_of(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(_type_name, names))

    @property
    def within_ns(self) -> int:
        """How long the wait may be, in ns."""
        return self.within // timedelta(microseconds=1) * 1000

    def __str__(self) -> str:
        return f"{self.after} → {' or '.join(self.one_of)}"
