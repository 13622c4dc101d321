"""What a wrapper refers to is found again where the wrapper's code goes: by value, by a reload."""

import asyncio
import gc
import inspect
import subprocess
import sys
import textwrap
import types

import pytest

from sidelight import arg, emits
from sidelight.testing import capture

SOURCE = """
from sidelight import arg, emits

@emits("sold", item=arg.item)
def function(item): return "old"

@emits("sold", item=arg.item)
async def coroutine(item): return "old"

@emits("sold", item=arg.item)
def generator(item): yield "old"

class Shop:
    @emits("sold", item=arg.item)
    def method(self, item): return "old"
"""
EDITED = SOURCE.replace("item=arg.item", "item=arg.item, price=arg.price")
EDITED = EDITED.replace("(item)", "(item, price=5)").replace("self, item", "self, item, price=5")
EDITED = EDITED.replace('"old"', '"new"').replace('"sold"', '"sold_again"')


def reload_like_autoreload(module, source):
    """Run a module again, and put the new code into the old functions."""
    old = {**vars(module), "method": vars(module)["Shop"].method}
    exec(compile(source, "shop.py", "exec"), vars(module))
    new = {**vars(module), "method": vars(module)["Shop"].method}
    for name in ("function", "coroutine", "generator", "method"):
        for attribute in ("__code__", "__defaults__", "__doc__", "__dict__"):
            setattr(old[name], attribute, getattr(new[name], attribute))
    return old


@pytest.fixture
def notebook(monkeypatch):
    """An interpreter in which IPython runs."""
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))


@pytest.mark.usefixtures("notebook")
def test_code_that_is_swapped_runs_the_new_function():
    module = types.ModuleType("reloaded_shop")
    exec(compile(SOURCE, "shop.py", "exec"), vars(module))
    old = reload_like_autoreload(module, EDITED)
    gc.collect()
    with capture() as recorded:
        assert old["function"]("a") == old["function"]("a", price=5) == "new"
        assert asyncio.run(old["coroutine"]("a", price=5)) == "new"
        assert list(old["generator"]("a", 5)) == ["new"]
        assert old["method"](None, "a", price=5) == "new"
    assert recorded.types == ["sold_again"] * 5
    assert [event.attributes for event in recorded] == [{"item": "a", "price": 5}] * 5


PROGRAM = """
    import subprocess, sys, cloudpickle
    from sidelight import arg, emits

    class Local:
        pass

    @emits("counted", start="begun", n=arg.n, double=lambda n: n * 2, mode="awaited")
    def recursive(n, local=Local):
        return 1 + recursive(n - 1) if n else 0

    @emits("awaited")
    async def coroutine(n):
        return n

    @emits("listed")
    def generator(n):
        yield n

    sys.stdout.buffer.write(cloudpickle.dumps([recursive, coroutine, generator]))
"""
WORKER = """
    import asyncio, pickle, sys
    from sidelight.testing import capture

    recursive, coroutine, generator = pickle.load(sys.stdin.buffer)
    with capture() as recorded:
        print(recursive(2), asyncio.run(coroutine(3)), list(generator(4)))
    print(recorded.types, [event.attributes for event in recorded][-3], recorded.losses)
"""


def run(program, given=b""):
    code = textwrap.dedent(program)
    done = subprocess.run(
        [sys.executable, "-c", code], input=given, capture_output=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def test_functions_of_a_script_are_pickled_by_value():
    pytest.importorskip("cloudpickle")
    told = run(WORKER, run(PROGRAM)).decode().splitlines()
    types_ = [*["begun"] * 3, *["counted"] * 3, "awaited", "listed"]
    assert told == ["2 3 [4]", f"{types_} {{'n': 2, 'double': 4}} {{}}"]


@pytest.mark.usefixtures("notebook")
def test_a_wrapper_leaves_nothing_behind():
    def make():
        function = types.FunctionType((lambda a: a).__code__, {}, "made")
        function.__qualname__, function.__module__ = "made", "module_of_many"
        return emits("made", a=arg.a)(function)

    kept = make()
    before = len(kept.__globals__)
    for _ in range(5):
        make()
    gc.collect()
    assert len(kept.__globals__) == before
    assert kept.__globals__["__name__"] == "module_of_many"
    assert inspect.unwrap(kept) is kept.__wrapped__


def test_a_module_that_was_imported_before_ipython_is_reloaded(monkeypatch):
    module = types.ModuleType("early_shop")
    exec(compile(SOURCE, "shop.py", "exec"), vars(module))
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    old = reload_like_autoreload(module, EDITED)
    gc.collect()
    assert old["function"]("a", price=5) == "new"
    assert asyncio.run(old["coroutine"]("a", price=5)) == "new"
    assert list(old["generator"]("a", 5)) == ["new"]
    assert old["method"](None, "a", price=5) == "new"
