"""Row 19: other event loops than asyncio's, and greenlets in the place of threads."""

import subprocess
import sys
from importlib.util import find_spec

import pytest
from tests.support.emitting import Order
from tests.support.interpreters import FREE_THREADED, how_to_get, interpreter
from tests.support.programs import running

CALLS_FULL, CALLS_SHORT = 20_000, 450
PATCH = "from gevent import monkey; monkey.patch_all()"
#: Coroutines are driven by hand: greenlets of one thread cannot have an asyncio loop each.
BY_HAND = """
import gevent
def run(work):
    try:
        work().send(None)
    except StopIteration:
        pass
async def sleep(seconds):
    gevent.sleep(seconds)
"""
LOOPS = {
    "uvloop": "import uvloop\ndef run(work): uvloop.run(work())",
    "trio": "import trio\nrun, sleep = trio.run, trio.sleep",
    "asyncio through anyio": "import anyio\nrun, sleep = anyio.run, anyio.sleep",
    "trio through anyio": """
import anyio
sleep = anyio.sleep
def run(work):
    anyio.run(work, backend="trio")
""",
    "no loop that we know": BY_HAND.replace("import gevent", "").replace("gevent", "time"),
    "gevent, patched later": f"{PATCH}\n{BY_HAND}",
    "gevent, patched first": BY_HAND,
}
#: Not supported; but what was acknowledged is stored. The threads report to one pipe.
EVENTLET = """
import warnings
warnings.simplefilter("ignore")
import eventlet, eventlet.debug
eventlet.monkey_patch()
eventlet.debug.hub_prevent_multiple_readers(False)
"""
LOOPS["eventlet, patched first"] = BY_HAND.replace("gevent", "eventlet")


def patched_first(loop):
    """The command of a program that patches before it imports sidelight."""
    patch = EVENTLET if "eventlet" in loop else PATCH
    return ("-c", f"{patch}\nfrom tests.support import emitting\nemitting.main()")


@pytest.mark.parametrize("loop", LOOPS)
def test_an_event_loop(loop, store, full, settled):
    # Eventlet is not imported here, because its hooks of `os.fork` would hold for all other tests.
    if "eventlet" in loop and find_spec("eventlet") is None:
        pytest.skip("pip install eventlet")
    calls = CALLS_FULL if full else CALLS_SHORT
    order = Order(calls=calls // 3, threads=3, pause=0.001, prelude=LOOPS[loop])
    command = {"command": patched_first(loop)} if "patched first" in loop else {}
    with running(store, order=order, **command) as program:
        assert program.end() == 0, program.told()
        complaints = [line for line in program.told().splitlines() if "sidelight" in line]
    assert not complaints, program.told()
    verdict = settled(19, loop, store, program, injected=1)
    assert verdict.acknowledged == 3 * (calls // 3)


WITHOUT_GIL = "import sys; sys._is_gil_enabled = lambda: False; import sidelight"
WITHOUT_INSTRUCTIONS = "import dis, opcode; opcode.opmap = {}; import sidelight; sidelight.emit"


def test_without_the_gil_the_import_is_refused():
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_GIL], capture_output=True, text=True, check=False
    )
    assert "ImportError: sidelight needs the GIL" in done.stderr
    assert "PYTHON_GIL=1" in done.stderr


def test_a_python_that_names_its_instructions_otherwise():
    subprocess.run([sys.executable, "-c", WITHOUT_INSTRUCTIONS], check=True)


def test_free_threaded():
    """A free-threaded build refuses the import, unless a library has enabled the GIL."""
    found = next((path for version in FREE_THREADED if (path := interpreter(version))), None)
    if found is None:
        pytest.skip(how_to_get(FREE_THREADED[0]))
    code = "import sys, sidelight; assert sys._is_gil_enabled()"
    done = subprocess.run([found, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0 or "sidelight needs the GIL" in done.stderr
