"""Every error that sidelight raises: one base, and the docstring is the message."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any


class SidelightError(Exception):
    """Sidelight could not do what was asked."""

    def __init__(self, **facts: object) -> None:
        """Fill the class's docstring with ``facts`` and make it the message."""
        self.facts = facts
        told = ", ".join(f"{name}: {value}" for name, value in facts.items())  # under python -OO
        super().__init__(inspect.cleandoc(self.__doc__).format(**facts) if self.__doc__ else told)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by the facts, as text: an error crosses to the process that waits for it."""
        return _again, (type(self), {name: str(value) for name, value in self.facts.items()})


def _again(kind: type[SidelightError], facts: dict[str, str]) -> SidelightError:
    error = kind.__new__(kind)
    SidelightError.__init__(error, **facts)
    return error


class PointError(SidelightError, TypeError):
    """{function}: {problem}; {remedy}"""


class UnknownParameterError(PointError):
    """{function} has no parameter {name}; {suggestion}"""

    def __init__(
        self, function: str, name: str, known: Iterable[str], stars: str | None = None
    ) -> None:
        """Name the closest of the ``known`` parameters, or list them all."""
        super().__init__(
            function=function, name=name, suggestion=_suggestion(name, list(known), stars)
        )


def _suggestion(name: str, known: list[str], stars: str | None) -> str:
    from difflib import get_close_matches  # noqa: PLC0415  # seldom needed, slow to import

    if close := get_close_matches(name, known, n=1):
        return f"did you mean {close[0]}?"
    if stars in known:
        return f"if it comes by **{stars}, write arg.{stars}[{name!r}]"
    return f"it has {', '.join(known)}" if known else "it takes no arguments"


class ExpressionError(SidelightError, TypeError):
    """{expression} cannot be {action} in a field: {remedy}"""


class NotLoadedError(SidelightError):
    """{attribute} of {kind} is not loaded, and to load it would send SQL on your connection"""


class TransactionError(SidelightError):
    """{point}: the event cannot be in the transaction: {problem}; {remedy}"""


class OutboxError(SidelightError):
    """the outbox in {url}: {problem}; {remedy}"""


class MapError(SidelightError, ValueError):
    """{place}: {problem}; {remedy}"""


class CatalogueError(SidelightError, TypeError):
    """catalogue: {what}: {problem}; {remedy}"""


class PayloadError(SidelightError):
    """the event {type} is not as the catalogue declares it: {problem}"""


class ConfigurationError(SidelightError, ValueError):
    """{setting}: {problem}; {remedy}"""


class SpoolError(SidelightError, OSError):
    """the spool {directory}: {problem}; {remedy}"""


class StoreError(SidelightError):
    """the events store {url}: {problem}; {remedy}"""


class StoreMissingError(StoreError):
    """there is no events store at {url}; {remedy}"""


class StoreVersionError(StoreError):
    """the events store {url} has schema version {found}, this sidelight knows {known}: \
upgrade sidelight, or name another store"""


class StoreBusyError(StoreError):
    """the events store {url} is kept locked: {problem}; {remedy}"""


class QueryError(SidelightError, ValueError):
    """{argument}: {problem}; {remedy}"""


class SinkUnavailableError(SidelightError):
    """{sink} does not answer: {problem}"""


class SinkInDoubtError(SinkUnavailableError):
    """{sink} refuses every event: {problem}"""


class SinkRefusedError(SidelightError):
    """{sink} refused a record: {problem}"""


class InstrumentationError(SidelightError, RuntimeError):
    """strict mode: the instrumentation of {point} failed ({reason}): {problem}"""
