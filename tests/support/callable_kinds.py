"""The kinds of callable that can be decorated: each row builds one, and calls it to its end.

`built` decorates a callable of a kind, and gives it back with a function that calls it with a
number. The number comes back, in a list from generators; -1 raises ValueError.
"""

import asyncio
import functools
import math
import types
import unittest.mock

import wrapt


def function(n):
    if n < 0:
        raise ValueError(n)
    return n


async def coroutine(n):
    await asyncio.sleep(0)
    return function(n)


def generator(n):
    yield function(n)
    return n


async def async_generator(n):
    yield await coroutine(n)


@types.coroutine
def old_coroutine(n):
    yield
    return function(n)


def passing(function):
    """The usual decorator: it hands everything on."""

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


@wrapt.decorator
def wrapt_passing(wrapped, instance, args, kwargs):
    return wrapped(*args, **kwargs)


class Instance:
    def __call__(self, n):
        return function(n)

    def method(self, n):
        return function(n)


class AsyncInstance:
    async def __call__(self, n):
        return await coroutine(n)


def dispatched(of):
    made = functools.singledispatch(lambda n: None)
    made.register(int, of)
    return functools.update_wrapper(made, of)


def methods(decorate):
    """A class whose methods are decorated in every way, and a subclass."""

    class Class:
        @decorate
        def method(self, n):
            return function(n)

        @decorate
        async def coroutine(self, n):
            return await coroutine(n)

        @decorate
        def generator(self, n):
            yield function(n)

        @decorate
        def __call__(self, n):
            return function(n)

        above_class = decorate(classmethod(lambda cls, n: function(n)))
        below_class = classmethod(decorate(lambda cls, n: function(n)))
        above_static = decorate(staticmethod(lambda n: function(n)))
        below_static = staticmethod(decorate(lambda n: function(n)))
        partial = decorate(functools.partialmethod(lambda self, first, n: function(n), 0))
        cached = decorate(functools.lru_cache(lambda self, n: function(n)))
        wrapt_class = decorate(wrapt_passing(classmethod(lambda cls, n: function(n))))

        async def undecorated(self, first, n):
            return await coroutine(n)

        async_partial = decorate(functools.partialmethod(undecorated, 0))

        @decorate
        @functools.singledispatchmethod
        def dispatched(self, n):
            raise NotImplementedError

        dispatched.register(int, lambda self, n: function(n))

    return Class, type("Sub", (Class,), {})


def awaited(function, n):
    async def finish():
        try:
            return await function(n)
        finally:
            await asyncio.sleep(0)  # the callbacks of a future run

    return asyncio.run(finish())


def async_listed(function, n):
    async def finish():
        return [item async for item in function(n)]

    return asyncio.run(finish())


def called(function, n):
    return function(n)


def listed(function, n):
    return list(function(n))


BASIC = {
    "function": (function, called),
    "coroutine": (coroutine, awaited),
    "generator": (generator, listed),
    "async generator": (async_generator, async_listed),
}
OBJECTS = {
    **BASIC,
    "types.coroutine": (old_coroutine, awaited),
    "bound method": (Instance().method, called),
    "instance": (Instance(), called),
    "async instance": (AsyncInstance(), awaited),
    "lru_cache": (functools.lru_cache(function), called),
    "singledispatch": (dispatched(function), called),
    "singledispatch of a coroutine": (dispatched(coroutine), awaited),
    "wrapt decorator": (wrapt_passing(function), called),
    "C function": (math.isqrt, called),
    "mock": (unittest.mock.Mock(side_effect=function), called),
    "async mock": (unittest.mock.AsyncMock(side_effect=function), awaited),
    "starts a task": (
        functools.wraps(coroutine)(lambda n: asyncio.ensure_future(coroutine(n))),
        awaited,
    ),
    "runs a loop": (functools.wraps(coroutine)(lambda n: asyncio.run(coroutine(n))), called),
    **{f"partial of a {k}": (functools.partial(of), call) for k, (of, call) in BASIC.items()},
    **{f"wrapper of a {k}": (passing(of), call) for k, (of, call) in BASIC.items()},
}
METHODS = {"coroutine": awaited, "async_partial": awaited, "generator": listed}
OF_CLASSES = ("above_class", "below_class", "above_static", "below_static", "wrapt_class")
OF_INSTANCES = ("method", "partial", "cached", "dispatched", "__call__", *METHODS)
KINDS = [
    *OBJECTS,
    *(f"{through}.{name}" for name in OF_CLASSES for through in ("class", "subclass", "instance")),
    *(f"instance.{name}" for name in OF_INSTANCES),
]


def built(kind, decorate):
    """A decorated callable of a kind, and the function that calls it with a number."""
    if kind in OBJECTS:
        of, call = OBJECTS[kind]
        made = decorate(of)
    else:
        through, _, name = kind.partition(".")
        cls, subclass = methods(decorate)
        made = getattr({"class": cls, "subclass": subclass}.get(through) or cls(), name)
        call = METHODS.get(name, called)
    return made, functools.partial(call, made)
