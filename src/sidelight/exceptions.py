"""The errors that sidelight raises; the docstring of each is the template of its message."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Final, ParamSpec, TypeVar

_P = ParamSpec("_P")
_R = TypeVar("_R")

_OWN: Final = frozenset({"sidelight", "wrapt"})
"""The packages between a caller's line and a refusal: wrapt calls the hooks of imports."""


class SidelightError(Exception):
    """Sidelight could not do what was asked."""

    def __init__(self, **facts: object) -> None:
        """Fill ``facts`` into the docstring of the class; without docstrings (-OO), list them."""
        self.facts = facts
        listed = ", ".join(f"{name}: {value}" for name, value in facts.items())
        super().__init__(inspect.cleandoc(self.__doc__).format(**facts) if self.__doc__ else listed)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the facts as text, so that an error can be raised in another process."""
        return _rebuilt, (type(self), {name: str(value) for name, value in self.facts.items()})


def _rebuilt(kind: type[SidelightError], facts: dict[str, str]) -> SidelightError:
    error = kind.__new__(kind)
    SidelightError.__init__(error, **facts)
    return error


def in_one_line(error: object) -> str:
    """Return the text of an error of a database as it stands within a sentence."""
    return " ".join(str(error).split())


def told_at_the_caller(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let the traceback of a `SidelightError` end at the line that called ``function``.

    The error is about that line, and its message says all that the frames of sidelight could. A
    bare ``raise`` adds no frame of its own. Frames of other code below stay, and other errors keep
    their whole tracebacks.
    """

    @functools.wraps(function)
    def telling(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return function(*args, **kwargs)
        except SidelightError as error:
            leave_own_frames_out(error)
            raise

    return telling


def leave_own_frames_out(error: BaseException) -> None:
    """Cut the frames of sidelight at both ends of a traceback, and those of its causes.

    On the caller's path an ``except`` clause calls it, because `told_at_the_caller` costs a call.
    """
    chained: BaseException | None = error
    while chained is not None:
        begin = last = None
        frame: TracebackType | None = chained.__traceback__
        while frame is not None:
            if frame.tb_frame.f_globals.get("__name__", "").partition(".")[0] not in _OWN:
                begin, last = begin or frame, frame
            frame = frame.tb_next
        if last is not None:
            last.tb_next = None
        chained.__traceback__ = begin
        chained = chained.__cause__


class PointError(SidelightError, TypeError):
    """{function}: {problem}; {remedy}"""


class UnknownParameterError(PointError):
    """{function} has no parameter {name}; {suggestion}"""

    def __init__(
        self, function: str, name: str, known: Iterable[str], stars: str | None = None
    ) -> None:
        """Suggest the closest of the ``known`` parameters, or list all of them."""
        super().__init__(
            function=function, name=name, suggestion=_suggestion(name, list(known), stars)
        )


def _suggestion(name: str, known: list[str], stars: str | None) -> str:
    from difflib import get_close_matches  # noqa: PLC0415  # seldom needed, slow to import

    if close := get_close_matches(name, known, n=1):
        return f"did you mean {close[0]}?"
    if stars in known:
        return f"for a key of **{stars}, write arg.{stars}[{name!r}]"
    return f"it has {', '.join(known)}" if known else "it takes no arguments"


class ExpressionError(SidelightError, TypeError):
    """{expression} cannot be {action} in a field: {remedy}"""


class NotLoadedError(SidelightError):
    """{attribute} of {kind} is not loaded, and loading it would issue SQL on your connection"""


class TransactionError(SidelightError):
    """{point}: the event cannot join the transaction: {problem}; {remedy}"""


class OutboxError(SidelightError):
    """the outbox in {url}: {problem}; {remedy}"""


class MapError(SidelightError, ValueError):
    """{place}: {problem}; {remedy}"""


class CatalogueError(SidelightError, TypeError):
    """catalogue: {what}: {problem}; {remedy}"""


class PayloadError(SidelightError):
    """the event {type} does not match its declaration in the catalogue: {problem}"""


class ConfigurationError(SidelightError, ValueError):
    """{setting}: {problem}; {remedy}"""


class SpoolError(SidelightError, OSError):
    """the spool {directory}: {problem}; {remedy}"""


class SpoolFullError(SpoolError):
    """the spool {directory}: {problem}; {remedy}"""


class StoreError(SidelightError):
    """the events store {url}: {problem}; {remedy}"""


class StoreMissingError(StoreError):
    """there is no events store at {url}; {remedy}"""


class StoreVersionError(StoreError):
    """the events store {url} has schema version {found}, this sidelight knows {known}: \
upgrade sidelight, or name another store"""


class StoreBusyError(StoreError):
    """the events store {url} is locked: {problem}; {remedy}"""


class QueryError(SidelightError, ValueError):
    """{argument}: {problem}; {remedy}"""


class SinkUnavailableError(SidelightError):
    """{sink} does not answer: {problem}"""


class SinkInDoubtError(SinkUnavailableError):
    """{sink} refuses every event: {problem}"""


class SinkUnsupportedError(SinkUnavailableError):
    """this endpoint takes no {sink}: {problem}"""


class SinkRefusedError(SidelightError):
    """{sink} refused a record: {problem}"""


class MessageError(SidelightError, ValueError):
    """the message holds no event of sidelight: {problem}"""


class InstrumentationError(SidelightError, RuntimeError):
    """strict mode: the instrumentation of {point} failed ({reason}): {problem}"""
