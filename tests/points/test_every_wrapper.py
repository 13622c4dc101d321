"""Each kind of function under each kind of declaration: the code that is generated runs."""

import asyncio
import inspect
import itertools

import pytest

from sidelight import arg, emits, result
from sidelight.testing import capture


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
    yield function(n)


KINDS = {
    "function": function,
    "coroutine": coroutine,
    "generator": generator,
    "async generator": async_generator,
}
PHASES = [
    phases
    for count in (1, 2, 3)
    for phases in itertools.combinations(("start", "success", "failure"), count)
]
DECLARED = {"start": {"start": "begun"}, "success": {"type": "done"}, "failure": {"failure": "bad"}}


def run(decorated, n):
    """Call to the end, whatever that means."""
    made = decorated(n)
    if inspect.isgenerator(made):
        return list(made)
    if inspect.isasyncgen(made):

        async def consume():
            return [item async for item in made]

        return asyncio.run(consume())
    if inspect.isawaitable(made):

        async def wait():
            return await made

        return asyncio.run(wait())
    return made


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("span", [True, False], ids=["span", "no span"])
@pytest.mark.parametrize("mode", ["scheduled", "awaited"])
@pytest.mark.parametrize("phases", PHASES, ids="+".join)
def test_every_kind_under_every_declaration(kind, span, mode, phases):
    named = {}
    for phase in phases:
        named |= DECLARED[phase]
    type_ = named.pop("type", None)
    if type_ is not None and kind != "async generator":
        named["artifact_id"] = result if phases == ("success",) else arg.n
    decorated = emits(type_, mode=mode, span=span, **named)(KINDS[kind])
    with capture() as recorded:
        run(decorated, 1)
        wanted = [{"start": "begun", "success": "done"}.get(phase) for phase in phases]
        assert recorded.types == [name for name in wanted if name]
        assert bool(recorded.spans) == span
    with capture() as recorded:
        with pytest.raises(ValueError, match="-1"):
            run(decorated, -1)
        wanted = [{"start": "begun", "failure": "bad"}.get(phase) for phase in phases]
        assert recorded.types == [name for name in wanted if name]
