"""What newer Pythons do differently: eager tasks, task groups, annotations that wait."""

import asyncio
import functools
import inspect
import sys

import pytest

from sidelight import arg, emits, result
from sidelight.testing import capture

eager = pytest.param(
    "eager",
    marks=pytest.mark.skipif(sys.version_info < (3, 12), reason="Python 3.12 has eager tasks"),
)


@emits("work_done", start="work_begun", failure="work_failed", mode="awaited", artifact_id=arg.n)
async def work(n, pauses=1):
    for _ in range(pauses):
        await asyncio.sleep(0)
    if n < 0:
        raise ValueError(n)
    return n


@emits("all_done", artifact_id=result)
async def all_of(numbers, pauses):
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work(n, pauses)) for n in numbers]
    return sum(task.result() for task in tasks)


def run(function, tasks):
    async def main():
        if tasks == "eager":
            asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        return await function

    with capture() as events:
        return asyncio.run(main()), [(event.type, event.artifact_id) for event in events]


@pytest.mark.parametrize("tasks", ["plain", eager])
@pytest.mark.parametrize("pauses", [0, 1, 3])
def test_the_tasks_of_a_group_emit_each_for_itself(tasks, pauses):
    """An eager task runs in its creator until it pauses first; without a pause, to its end."""
    total, events = run(all_of(range(10), pauses), tasks)
    assert total == 45
    expected = {(kind, str(n)) for n in range(10) for kind in ("work_begun", "work_done")}
    assert sorted(events) == sorted({*expected, ("all_done", "45")})


@pytest.mark.parametrize("tasks", ["plain", eager])
@pytest.mark.parametrize("pauses", [0, 1])
def test_a_group_that_fails_raises_as_undecorated(tasks, pauses):
    if tasks == "eager" and not pauses and sys.version_info < (3, 13):
        pytest.skip("Python 3.12 cancels the creator of an eager task that fails at once")

    async def failing():
        with pytest.raises(ExceptionGroup) as raised:
            await all_of([1, -2], pauses)
        return [type(each) for each in raised.value.exceptions]

    errors, events = run(failing(), tasks)
    assert errors == [ValueError]
    assert ("work_failed", "-2") in events
    assert not {kind for kind, _ in events} & {"all_done"}


def unresolved(function):
    """Give annotations that cannot be evaluated, as Python 3.14 keeps those of an `import` that is
    for type checkers only."""

    def annotate(kind, /):
        if kind > 2:  # as the compiler's own: the library then asks otherwise
            raise NotImplementedError
        return {"order": NotImported}  # noqa: F821

    function.__annotate__ = annotate
    return function


def plain(order):
    return order


KINDS = {
    "function": lambda: unresolved(plain),
    "wrapped": lambda: functools.wraps(unresolved(plain))(lambda *args: plain(*args)),
    "partial": lambda: functools.partial(unresolved(plain)),
    "field": lambda: plain,
}


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_annotations_are_not_evaluated_at_decoration(make):
    seen = unresolved(lambda order: order)
    decorated = emits("order_received", artifact_id=arg.order, seen=seen)(make())
    with capture() as events:
        assert decorated("o1") == "o1"
    assert [(each.artifact_id, each.attributes["seen"]) for each in events] == [("o1", "o1")]


@pytest.mark.skipif(sys.version_info < (3, 14), reason="Python 3.14 keeps annotations for later")
def test_a_decorated_function_keeps_its_waiting_annotations():
    decorated = emits("order_received")(unresolved(plain))
    with pytest.raises(NameError):
        inspect.signature(decorated)
    assert decorated.__annotate__ is plain.__annotate__
