"""Values whose methods fail, for programs that emit (see `tests.faults.test_hostile`).

Each call captures one of `VALUES`, in turn.
"""

from __future__ import annotations

import functools
import math
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from sidelight import emit, emits

LARGE = 1 << 28


class Bites(BaseException):
    """No Exception: the usual guard would let it through."""


def raising(name: str, error: BaseException) -> Any:
    """An instance of a class whose method of this name raises."""

    def bite(self: Any, *_: Any) -> Any:
        raise error

    made = property(bite) if name == "__class__" else bite
    return type("Biting", (), {name: made})()


class Endless:
    """Its repr has no end."""

    def __repr__(self) -> str:
        return repr([self, self.__class__()])


class Sleeps:
    """Takes long for its `repr`, so that sidelight stops calling it."""

    def __repr__(self) -> str:
        time.sleep(0.05)
        return "Sleeps"


class Emits:
    """Emits while it is looked at, by function and by hand."""

    @emits("told_inside")
    def __repr__(self) -> str:
        emit("told_by_hand")
        return "emits"


class Quits:
    """Ends the process, or so it thinks."""

    def __repr__(self) -> str:
        sys.exit("because it was looked at")


class Text(str):
    """Lies about itself."""

    __slots__ = ()

    def __len__(self) -> int:
        return 1

    def __getitem__(self, _: Any) -> str:
        raise Bites

    __str__ = __repr__ = __hash__ = __eq__ = __getitem__  # type: ignore[assignment]


class Mapping(dict):  # type: ignore[type-arg]
    """Lies about itself."""

    def items(self) -> Any:
        raise Bites

    __len__ = __iter__ = __getitem__ = keys = items  # type: ignore[assignment]


class Sequence(list):  # type: ignore[type-arg]
    """Lies about itself."""

    def __iter__(self) -> Any:
        raise Bites

    __len__ = __getitem__ = __iter__  # type: ignore[assignment]


def cycle() -> Any:
    """A list and a dictionary in each other."""
    one: list[Any] = []
    one.append({"one": one})
    return one


@functools.cache
def changing() -> Changing:
    """The only one."""
    return Changing()


class Changing:
    """Containers that another thread changes all the time."""

    def __init__(self) -> None:
        self.mapping: dict[str, Any] = {}
        self.sequence: list[Any] = []
        threading.Thread(target=self._change, daemon=True).start()

    def _change(self) -> None:
        while True:
            time.sleep(1e-4)
            for n in range(50):
                self.mapping[f"k{n}"] = [n] * 3
                self.sequence.append(n)
            self.mapping.clear()
            self.sequence.clear()


_ERRORS = (ValueError("v"), Bites("b"), SystemExit(3), GeneratorExit(), MemoryError())
_METHODS = (
    *("__str__", "__eq__", "__hash__", "__len__", "__iter__", "__bool__", "__getattr__"),
    *("__class__", "__getattribute__", "__index__", "__float__", "__fspath__"),
)
_PLACEHOLDER = "while it was captured"

#: Name → how the value is made, and what has to be in the JSON that becomes of it.
VALUES: dict[str, tuple[Callable[[], Any], str]] = {
    **{
        f"__repr__ raises {type(error).__name__}": (
            functools.partial(raising, "__repr__", error),
            _PLACEHOLDER,
        )
        for error in _ERRORS
    },
    **{
        f"{name} raises": (functools.partial(raising, name, Bites("b")), "Biting")
        for name in _METHODS
    },
    "endless": (Endless, "<Endless: "),
    "sleeps": (Sleeps, "Sleeps"),
    "emits": (Emits, '"emits"'),
    "quits": (Quits, _PLACEHOLDER),
    "text that lies": (lambda: Text("truth"), '"truth"'),
    "mapping that lies": (lambda: Mapping(truth=1), '{"truth":1}'),
    "sequence that lies": (lambda: Sequence(["truth"]), '["truth"]'),
    "large text": (lambda: "x" * LARGE, "xxx…"),
    "large bytes": (lambda: bytes(LARGE), f"<{LARGE} bytes>"),
    "large inside": (lambda: {"a": ["x" * LARGE]}, "xxx…"),
    "long list": (lambda: [0] * (LARGE >> 3), " more"),
    "surrogate": (lambda: "lone \ud800", "lone \\\\ud800"),
    "surrogate key": (lambda: {"\udfff": 1}, "udfff"),
    "zero": (lambda: "a\0b", "a␀b"),
    "nan": (lambda: math.nan, '"nan"'),
    "infinity": (lambda: [math.inf, -math.inf], '["inf","-inf"]'),
    "huge": (lambda: 10**40_000, "bits>"),
    "negative": (lambda: -(2**200), '"-0x1'),
    "cycle": (cycle, "<list>"),
    "deep": (lambda: eval("[" * 60 + "]" * 60), "<list>"),
    "changing mapping": (lambda: changing().mapping, "{"),
    "changing sequence": (lambda: changing().sequence, "["),
    "class": (lambda: type("Meta", (type,), {"__module__": property(cycle)})("M", (), {}), "M"),
}
NAMES = [*VALUES]


@functools.cache
def value(name: str) -> Any:
    """The value of this name."""
    return VALUES[name][0]()


def value_of(n: int) -> Any:
    """The value that the call of this number captures."""
    return value(NAMES[n % len(NAMES)])


def prepare() -> None:
    """Make all of them now."""
    for name in NAMES:
        value(name)
