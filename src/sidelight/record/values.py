"""Make captured values plain: copy them into types that msgpack and JSON can carry.

A value is read on the caller's path, so every copy is bounded before it begins. Text is cut before
it is encoded, containers are read only as far as they are kept, and one value has an allowance for
everything in it. More than four values of one event share an allowance, so that many cost no more
than a few large ones. Built-in containers and numbers are read by the methods of the built-in
class, because a subclass may override them. A value of an unknown class is read by its `repr`,
which is foreign code: an exception costs a placeholder, and a class whose code exceeds 5 ms three
times in a row is not called again.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import math
import numbers
import os
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any, Final

from sidelight.host import is_interrupt, perf_counter_ns, traceback_of
from sidelight.record.structured import ABSENT, fields, scalar

MAX_TEXT: Final = 4096
"""Characters of one text; a longer text is cut and ends in an ellipsis."""
MAX_NAME: Final = 256
"""Characters of a key or of a class name."""
MAX_ITEMS: Final = 64
"""Items of one container."""
MAX_DEPTH: Final = 4
"""Levels of nested containers."""
MAX_VALUES: Final = 256
"""Values inside one value, at all depths together."""
MAX_ALL_TEXT: Final = 16 * MAX_TEXT
"""Characters inside one value, at all depths together."""
WHOLE_FIELDS: Final = 4
"""Values of an event that have an allowance each; more than so many share one."""
_EVENT_VALUES: Final = 4 * MAX_VALUES
_EVENT_TEXT: Final = 2 * MAX_ALL_TEXT
MAX_FRAMES: Final = 64
"""Frames of one exception: those nearest to the `raise`."""
MAX_REPR_NS: Final = 5_000_000
"""Nanoseconds that one call of foreign code may take: half the budget."""
MAX_SLOW_CALLS: Final = 3
"""Calls in a row that may exceed `MAX_REPR_NS`; a busy machine alone causes one or two."""

_INT_RANGE: Final = range(-(1 << 63), 1 << 64)
_ELLIPSIS: Final = "…"
_FRAMES_WALKED: Final = 20_000
_SEQUENCES: Final = (list, tuple, set, frozenset, deque)
_TEXTS: Final = (str, bytes, bytearray)
_clock: Final = perf_counter_ns


class Allowance:
    """What the values of one event may still hold together, besides numbers and short texts.

    Attributes:
        values, text: numbers of values inside the values, and of characters.
        longest: characters of one text.
    """

    __slots__ = ("longest", "text", "values")

    def __init__(self, fields: int) -> None:
        """Begin an event of so many fields."""
        self.values, self.text = _EVENT_VALUES, _EVENT_TEXT
        self.longest = longest_text(fields)


def shared_by(fields: int) -> Allowance | None:
    """Return what so many values of an event share; None where each has its own allowance."""
    return Allowance(fields) if fields > WHOLE_FIELDS else None


def plain(value: Any, depth: int = 0, shared: Allowance | None = None) -> Any:
    """Copy a value into a plain one of bounded size.

    str, int, float, bool and None stay. Dates, UUIDs, Decimals and paths become text, Enum members
    their value. Small lists and mappings are copied, and the fields of data objects. Any other
    value becomes its `repr`, cut short. A value that raises while it is read becomes a placeholder.

    Args:
        value: anything.
        depth: levels of containers around the value; each step below 0 allows four times as much.
        shared: of the event's values; None for a value that has its own bounds only.
    """
    kind = type(value)
    if kind is str:
        return text(value, MAX_TEXT if shared is None else shared.longest)
    if kind is int:
        return _integer(value)
    if kind is float:
        return _real(value)
    if value is None or kind is bool:
        return value
    copy = _Copy(1 << -2 * min(depth, 0))
    if shared is None:
        return copy.of(value, depth)
    copy.values, copy.text = min(copy.values, shared.values), min(copy.text, shared.text)
    values, characters = copy.values, copy.text
    copied = copy.of(value, depth)
    shared.values -= values - max(copy.values, 0)
    shared.text -= characters - max(copy.text, 0)
    return copied


def longest_text(fields: int) -> int:
    """Return how many characters a text may have in an event of so many fields."""
    return min(MAX_TEXT, 2 * _EVENT_TEXT // fields)


def text(value: str, longest: int = MAX_TEXT) -> str:
    """Copy a text into a `str` of at most ``longest`` characters that UTF-8 can encode."""
    if str.__len__(value) > longest:
        value = str.__getitem__(value, slice(0, max(longest - 1, 0))) + _ELLIPSIS
    elif type(value) is not str:
        value = str.__getitem__(value, slice(None))
    if value.isascii():
        return value
    return value.encode("utf-8", "backslashreplace").decode("utf-8")  # lone surrogates


def _integer(value: int) -> int | str:
    if value in _INT_RANGE:
        return value
    bits = value.bit_length()
    return hex(value) if bits <= 512 else f"<int of {bits} bits>"  # decimal would be quadratic


def _real(value: float) -> float | str:
    return value if math.isfinite(value) else repr(value)


def class_name(kind: type) -> str:
    """Name a class in full, built-in ones without their module, as `error.type` requires."""
    module = type.__dict__["__module__"].__get__(kind)
    name = type.__dict__["__qualname__"].__get__(kind)
    bare = type(module) is not str or module == "builtins"
    return text(name if bare else f"{module}.{name}", MAX_NAME)


def short_name(kind: type) -> str:
    """Read the name of a class past its metaclass, which may override ``__name__``."""
    return text(type.__dict__["__name__"].__get__(kind), MAX_NAME)


#: The first match counts, because a class may be several of these. The last three match numpy's.
_CONVERSIONS: Final[tuple[tuple[Any, Callable[[Any], Any]], ...]] = (
    (str, lambda value: value),  # cut and copied by `_Copy.of`
    (int, lambda value: _integer(int.__index__(value))),
    (float, lambda value: _real(float.__float__(value))),
    ((datetime.date, datetime.time), lambda value: value.isoformat()),
    (datetime.timedelta, lambda value: value.total_seconds()),
    ((bytes, bytearray, memoryview), lambda value: f"<{memoryview(value).nbytes} bytes>"),
    ((uuid.UUID, decimal.Decimal), str),
    (os.PathLike, os.fsdecode),
    (type, class_name),
    (numbers.Integral, lambda value: _integer(int(value))),
    (numbers.Rational, str),
    (numbers.Real, lambda value: _real(float(value))),
)


class _SlowClasses:
    """Stop calling code of classes that exceeded 5 ms three times in a row.

    Classes are kept by identity, because a metaclass may define a hostile ``__hash__``.
    """

    def __init__(self) -> None:
        self._slow_calls: dict[int, tuple[type, int]] = {}
        self.given_up: dict[int, type] = {}

    def call(self, kind: type, read: Callable[[Any], Any], value: Any) -> Any:
        """Call foreign code on a value, and time it."""
        begun = _clock()
        try:
            return read(value)
        finally:
            if _clock() - begun > MAX_REPR_NS:
                self._count(kind)
            elif self._slow_calls:
                self._slow_calls.pop(id(kind), None)

    def _count(self, kind: type) -> None:
        _, calls = self._slow_calls.pop(id(kind), (kind, 0))
        if calls + 1 < MAX_SLOW_CALLS:
            self._slow_calls[id(kind)] = kind, calls + 1
        else:
            self.given_up[id(kind)] = kind


_slow_classes: Final = _SlowClasses()


def _given_up(kind: type) -> str:
    return f"<{short_name(kind)}: too slow to read>"


class _Copy:
    """One copy of one value, with what remains of its allowance."""

    __slots__ = ("text", "values")

    def __init__(self, times: int) -> None:
        self.values = MAX_VALUES * times
        self.text = MAX_ALL_TEXT * times

    def of(self, value: Any, depth: int) -> Any:
        """Copy the value, or a value inside it."""
        kind = type(value)
        if value is None or kind is bool:
            return value
        self.values -= 1
        if self.values < 0:
            return _ELLIPSIS
        if id(kind) in _slow_classes.given_up:
            return _given_up(kind)
        try:
            copied = self._read(kind, value, depth)
        except BaseException as error:
            if is_interrupt(error):
                raise
            return f"<{short_name(kind)}: {short_name(type(error))} while it was captured>"
        if isinstance(copied, str):
            copied = text(copied, min(MAX_TEXT, max(self.text, 0)))
            self.text -= len(copied)
        return copied

    def _read(self, kind: type, value: Any, depth: int) -> Any:
        if issubclass(kind, enum.Enum):
            return self.of(value.value, depth + 1)
        if issubclass(kind, (*_SEQUENCES, Mapping)):
            return (
                f"<{short_name(kind)}>" if depth >= MAX_DEPTH else self._inside(kind, value, depth)
            )
        if (known := scalar(kind, value)) is not ABSENT:
            return self.of(known, depth + 1)
        if (data := fields(kind, value)) is not None:
            return (
                f"<{short_name(kind)}>" if depth >= MAX_DEPTH else self._inside(dict, data, depth)
            )
        for known, convert in _CONVERSIONS:
            if issubclass(kind, known):  # pyright: ignore[reportGeneralTypeIssues]
                return convert(value)
        return _slow_classes.call(kind, repr, value)

    def _inside(self, kind: type, value: Any, depth: int) -> Any:
        for base in _SEQUENCES:
            if issubclass(kind, base):
                copied = self._items_of(islice(base.__iter__(value), MAX_ITEMS), depth)
                rest = base.__len__(value) - len(copied)
                return [*copied, *((_more(rest),) if rest > 0 else ())]
        if issubclass(kind, dict):
            kept, length = list(islice(dict.items(value), MAX_ITEMS)), dict.__len__(value)
        else:
            kept, length = _slow_classes.call(kind, _pairs, value)
        found: dict[str, Any] = {}
        for key, item in kept:
            if self.values <= 0 or self.text <= 0:
                break
            name = text(key if type(key) is str else str(self.of(key, MAX_DEPTH - 1)), MAX_NAME)
            self.text -= len(name)
            found[name] = self.of(item, depth + 1)
        rest = length - len(found)  # keys may be equal as text
        return found | {_more(rest): _ELLIPSIS} if rest > 0 else found

    def _items_of(self, items: Iterable[Any], depth: int) -> list[Any]:
        """Copy items as long as there is an allowance."""
        copied: list[Any] = []
        for item in list(items):
            if self.values <= 0 or self.text <= 0:
                break
            copied.append(self.of(item, depth + 1))
        return copied


def _pairs(value: Mapping[Any, Any]) -> tuple[list[tuple[Any, Any]], int]:
    return list(islice(value.items(), MAX_ITEMS)), len(value)


def _more(count: int) -> str:
    return f"{_ELLIPSIS} {count} more"


def error_type(error: BaseException) -> str:
    """Name the class of an exception in full."""
    return class_name(type(error))


def error_message(error: BaseException) -> str:
    """Read the message of an exception, cut short; a placeholder where reading it raises."""
    try:
        return text(_message(error))
    except BaseException as problem:
        if is_interrupt(problem):
            raise
        return f"<{short_name(type(problem))} while it was captured>"


def _message(error: BaseException) -> str:
    """Call `str` of an exception; its long arguments are cut first, because `str` copies them."""
    kind = type(error)
    if id(kind) in _slow_classes.given_up:
        return _given_up(kind)
    made_by = {BaseException.__str__: BaseException, KeyError.__str__: KeyError}.get(
        type.__getattribute__(kind, "__str__")
    )
    args = BaseException.__dict__["args"].__get__(error)
    if made_by and any(_is_text(each) and len(each) > MAX_TEXT for each in args):
        return str(made_by(*(e[: MAX_TEXT + 1] if _is_text(e) else e for e in args)))
    message: str = _slow_classes.call(kind, str, error)
    return message


def _is_text(value: Any) -> bool:
    return any(type(value) is each for each in _TEXTS)  # a metaclass may define `__hash__`


def error_details(error: BaseException) -> list[Any]:
    """Read type, message and frames of an exception, without formatting a traceback."""
    nearest: deque[Any] = deque(maxlen=MAX_FRAMES)
    traceback = traceback_of(error)
    for _ in range(_FRAMES_WALKED):
        if traceback is None:
            break
        if not traceback.tb_frame.f_code.co_filename.startswith("<sidelight "):  # generated
            nearest.append(traceback)
        traceback = traceback.tb_next
    frames = []
    for each in nearest:
        code = each.tb_frame.f_code
        frames.append([text(code.co_filename), each.tb_lineno, text(code.co_qualname)])
    return [error_type(error), error_message(error), frames]
