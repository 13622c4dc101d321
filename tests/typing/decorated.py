"""Decorated functions as type checkers see them (read by test_typing.py, never run)."""

import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from typing import Any, TypeVar, overload, reveal_type

import sidelight
from sidelight import arg, choose, emits, error, result
from sidelight.testing import capture

T = TypeVar("T")


@emits("a", artifact_id=arg.a, note=result.b, tags=["x"])
def function(a: int, /, b: str = "x", *rest: bytes, c: bool, **more: float) -> list[int]:
    return [a]


reveal_type(function)
# to mypy: def (int, b: str =, *rest: bytes, c: bool, **more: float) -> list[int]
# to pyright: (a: int, /, b: str = "x", *rest: bytes, c: bool, **more: float) -> list[int]
reveal_type(function(1, c=True))
# to both: list[int]
function("1", c=True)  # error
function(1)  # error


@emits(choose(arg.a, {1: "one"}, otherwise="many"), failure="failed", code=error.code)
async def coroutine(a: int) -> str:
    return str(a)


reveal_type(coroutine)
# to mypy: def (a: int) -> Coroutine[Any, Any, str]
# to pyright: (a: int) -> CoroutineType[Any, Any, str]


@emits("a")
def generator(a: int) -> Generator[int, str, bytes]:
    got = yield a
    return got.encode()


reveal_type(generator(1))
# to both: Generator[int, str, bytes]


@emits("a")
async def async_generator(a: int) -> AsyncIterator[int]:
    yield a


reveal_type(async_generator(1))
# to both: AsyncIterator[int]


@emits("c", mode="awaited")
@emits("b", start="began", span=False)
@emits("a")
def stacked(a: T) -> T:
    return a


reveal_type(stacked(b"x"))
# to both: bytes


@overload
def overloaded(a: int) -> int: ...
@overload
def overloaded(a: str) -> str: ...
@emits("a")
def overloaded(a: int | str) -> int | str:
    return a


reveal_type(overloaded("x"))
# to both: str


class Shop:
    @emits("sold", price=arg.price)
    def sell(self, price: int) -> str:
        return str(price)

    @emits("above")
    @classmethod
    def above(cls, a: int) -> "type[Shop]":
        return cls

    @classmethod
    @emits("below")
    def below(cls, a: int) -> "type[Shop]":
        return cls

    @emits("static")
    @staticmethod
    def static(a: int) -> int:
        return a

    @property
    @emits("read")
    def size(self) -> int:
        return 1

    @emits("awaited")
    async def wait(self) -> float:
        return 1.0


reveal_type(Shop().sell)
# to mypy: def (price: int) -> str
# to pyright: (price: int) -> str
reveal_type(Shop.above(1))
# to both: type[Shop]
reveal_type(Shop().below(1))
# to both: type[Shop]
reveal_type(Shop.static(1))
# to both: int
reveal_type(Shop().size)
# to both: int
Shop().sell("1")  # error
Shop.above("1")  # error


async def asynchronous() -> None:
    reveal_type(await Shop().wait())
    # to both: float
    reveal_type(await coroutine(1))
    # to both: str
    reveal_type(await sidelight.emit("x"))
    # to both: Receipt


partial = emits("a")(functools.partial(function, 1))
reveal_type(partial)
# to both: partial[list[int]]


class Doubler:
    factor: int = 2

    def __call__(self, a: int) -> int:
        return a * self.factor


double = emits("a")(Doubler())
reveal_type(double)
# to both: Doubler
reveal_type(double.factor)
# to both: int


def takes(callback: Callable[[int], Awaitable[str]]) -> None: ...


takes(coroutine)
takes(stacked)  # error


def iterates(iterator: Iterator[int]) -> None: ...


iterates(generator(1))

with capture() as recorded, sidelight.bind(artifact_id="a"):
    reveal_type(recorded.types)
    # to both: list[str]
    reveal_type(recorded.one("a").artifact_id)
    # to both: str | None

any_field: Any = arg.whatever[0].name
emits("a", mode="sheduled")  # error
emits("a", span="no")  # error
emits(1)  # error
emits("a", start=1)  # error
emits(function)  # error
