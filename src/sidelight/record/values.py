"""Values made plain at capture: what goes into a record is a copy that nothing can change later.

A value is looked at on the caller's path, so the work is bounded before it begins: text is cut
before it is encoded, containers are read only as far as they are kept, and one value has an
allowance for everything in it. Built-in containers and numbers are read by the methods of the
built-in class, whatever a subclass has made of them. Only for what is of no known kind is a
stranger's code asked (its `repr`), and whatever that raises costs a placeholder. How long that
takes is not in our hands: of a class whose code took too long three times in a row nothing is asked
any more.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import math
import numbers
import os
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any, Final

from sidelight.host import from_outside

MAX_TEXT: Final = 4096
"""Characters of one text; what is longer is cut and ends in an ellipsis."""
MAX_NAME: Final = 256
"""Characters of a key, or of a class's name."""
MAX_ITEMS: Final = 64
"""Items of one container."""
MAX_DEPTH: Final = 4
"""Containers inside each other."""
MAX_VALUES: Final = 256
"""Values inside one value, at all depths together."""
MAX_ALL_TEXT: Final = 16 * MAX_TEXT
"""Characters inside one value, at all depths together."""
MAX_FRAMES: Final = 64
"""Frames of one exception: those nearest to where it was raised."""
TOO_LONG: Final = 5_000_000
"""Nanoseconds that a stranger's code may take: half the budget."""
STRIKES: Final = 3
"""How often in a row it may take longer. (Once may be the machine's doing.)"""
SCALARS: Final = frozenset({int, bool, type(None)})
"""Types that the encoder takes as they are. (An int of more than 64 bits it refuses; the emitter
then comes back here. A float is not among them, for NaN and infinity have no JSON.)"""

_INT_RANGE: Final = range(-(1 << 63), 1 << 64)
_ELLIPSIS: Final = "…"
_FRAMES_WALKED: Final = 20_000
_SEQUENCES: Final = (list, tuple, set, frozenset, deque)
_TEXTS: Final = frozenset({str, bytes, bytearray})
_clock: Final = time.perf_counter_ns


def plain(value: Any, depth: int = 0) -> Any:
    """A value that msgpack and JSON can carry, of bounded size.

    str, int, float, bool and None stay; dates, UUIDs, Decimals and paths become text, Enum members
    their value, small lists and mappings are copied. For everything else a `repr`, cut short. What
    a value raises while it is looked at costs a placeholder, never more.

    Args:
        value: anything.
        depth: how deep in another value it lies; below 0 more is allowed, fourfold for each step.
    """
    kind = type(value)
    if kind is str:
        return text(value)
    if kind is int:
        return _integer(value)
    if kind is float:
        return _real(value)
    if kind in SCALARS:
        return value
    return _Copy(1 << -2 * min(depth, 0)).of(value, depth)


def text(value: str, longest: int = MAX_TEXT) -> str:
    """A text that UTF-8 can carry, of so many characters at the most; a plain `str`."""
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
    """A class by its full name (builtins bare), as `error.type` wants it."""
    module = type.__dict__["__module__"].__get__(kind)
    name = type.__dict__["__qualname__"].__get__(kind)
    bare = type(module) is not str or module == "builtins"
    return text(name if bare else f"{module}.{name}", MAX_NAME)


def _name(kind: type) -> str:
    """A class's own name, whatever its metaclass says."""
    return text(type.__dict__["__name__"].__get__(kind), MAX_NAME)


#: In this order: a class may be several of these. The numbers at the end are numpy's, for example.
_CONVERSIONS: Final[tuple[tuple[Any, Callable[[Any], Any]], ...]] = (
    (str, text),
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


class _Patience:
    """How long strangers may talk. Classes are kept by identity: theirs may be hostile too."""

    def __init__(self) -> None:
        self._strikes: dict[int, tuple[type, int]] = {}
        self.lost: dict[int, type] = {}

    def ask(self, kind: type, way: Callable[[Any], Any], value: Any) -> Any:
        """What the class's own code says of a value."""
        begun = _clock()
        try:
            return way(value)
        finally:
            if _clock() - begun > TOO_LONG:
                self._strike(kind)
            elif self._strikes:
                self._strikes.pop(id(kind), None)

    def _strike(self, kind: type) -> None:
        _, strikes = self._strikes.pop(id(kind), (kind, 0))
        if strikes + 1 < STRIKES:
            self._strikes[id(kind)] = kind, strikes + 1
        else:
            self.lost[id(kind)] = kind


_patience: Final = _Patience()


def _unasked(kind: type) -> str:
    return f"<{_name(kind)}: it takes too long to tell>"


class _Copy:
    """The copy of one value, and what is left of its allowance."""

    __slots__ = ("text", "values")

    def __init__(self, times: int) -> None:
        self.values = MAX_VALUES * times
        self.text = MAX_ALL_TEXT * times

    def of(self, value: Any, depth: int) -> Any:
        """The copy of ``value``, or of something inside it."""
        kind = type(value)
        if kind in SCALARS and kind is not int:
            return value
        self.values -= 1
        if self.values < 0:
            return _ELLIPSIS
        if id(kind) in _patience.lost:
            return _unasked(kind)
        try:
            copied = self._read(kind, value, depth)
        except BaseException as error:
            if from_outside(error):
                raise
            return f"<{_name(kind)}: {_name(type(error))} while it was captured>"
        if isinstance(copied, str):
            copied = text(copied, min(MAX_TEXT, self.text))
            self.text -= len(copied)
        return copied

    def _read(self, kind: type, value: Any, depth: int) -> Any:
        if issubclass(kind, enum.Enum):
            return self.of(value.value, depth + 1)
        if issubclass(kind, (*_SEQUENCES, Mapping)):
            return f"<{_name(kind)}>" if depth >= MAX_DEPTH else self._inside(kind, value, depth)
        for known, convert in _CONVERSIONS:
            if issubclass(kind, known):  # pyright: ignore[reportGeneralTypeIssues]
                return convert(value)
        return _patience.ask(kind, repr, value)

    def _inside(self, kind: type, value: Any, depth: int) -> Any:
        for base in _SEQUENCES:
            if issubclass(kind, base):
                items = list(islice(base.__iter__(value), MAX_ITEMS))
                return [*self._each(items, depth), *_rest(base.__len__(value))]
        if issubclass(kind, dict):
            kept, length = list(islice(dict.items(value), MAX_ITEMS)), dict.__len__(value)
        else:
            kept, length = _patience.ask(kind, _items, value)
        keys = [key if type(key) is str else str(self.of(key, MAX_DEPTH - 1)) for key, _ in kept]
        copied = self._each((item for _, item in kept), depth)
        more = dict.fromkeys(_rest(length), _ELLIPSIS)
        return dict(zip((text(key, MAX_NAME) for key in keys), copied, strict=True)) | more

    def _each(self, items: Iterable[Any], depth: int) -> list[Any]:
        return [self.of(item, depth + 1) for item in items]


def _items(value: Mapping[Any, Any]) -> tuple[list[tuple[Any, Any]], int]:
    return list(islice(value.items(), MAX_ITEMS)), len(value)


def _rest(length: int) -> list[str]:
    return [f"{_ELLIPSIS} {length - MAX_ITEMS} more"] if length > MAX_ITEMS else []


def error_type(error: BaseException) -> str:
    """The exception's class by its full name."""
    return class_name(type(error))


def error_message(error: BaseException) -> str:
    """What the exception says, cut short; a placeholder when it raises instead."""
    try:
        return text(_said(error))
    except BaseException as problem:
        if from_outside(problem):
            raise
        return f"<{_name(type(problem))} while it was captured>"


def _said(error: BaseException) -> str:
    """Its text. Of what it was raised with only so much is put into that as will be kept."""
    kind = type(error)
    if id(kind) in _patience.lost:
        return _unasked(kind)
    made_by = {BaseException.__str__: BaseException, KeyError.__str__: KeyError}.get(
        type.__getattribute__(kind, "__str__")
    )
    args = BaseException.__dict__["args"].__get__(error)
    if made_by and any(type(each) in _TEXTS and len(each) > MAX_TEXT for each in args):
        return str(made_by(*(e[: MAX_TEXT + 1] if type(e) in _TEXTS else e for e in args)))
    said: str = _patience.ask(kind, str, error)
    return said


def error_details(error: BaseException) -> list[Any]:
    """Type, message and frames of an exception; nothing is formatted, frames are only walked."""
    nearest: deque[Any] = deque(maxlen=MAX_FRAMES)
    traceback = error.__traceback__
    for _ in range(_FRAMES_WALKED):
        if traceback is None:
            break
        if not traceback.tb_frame.f_code.co_filename.startswith("<sidelight "):  # a wrapper
            nearest.append(traceback)
        traceback = traceback.tb_next
    frames = []
    for each in nearest:
        code = each.tb_frame.f_code
        frames.append([text(code.co_filename), each.tb_lineno, text(code.co_qualname)])
    return [error_type(error), error_message(error), frames]
