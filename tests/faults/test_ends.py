"""Row 18: each way to end a process, on each installed version of Python.

sidelight delays the end by at most one second, also if neither the store nor the Collector
answers. The next process delivers the remaining records.
"""

import contextlib
import itertools
import signal
import socket
import sqlite3
from dataclasses import dataclass, replace

import pytest
from tests.support.commands import sidelight
from tests.support.emitting import Order
from tests.support.interpreters import HERE, VERSIONS, how_to_get, interpreter
from tests.support.preludes import TELL_WHEN
from tests.support.programs import (
    caught_up,
    deliver,
    judge,
    nothing_left,
    running,
    seconds_of_the_end,
    stored,
)

CALLS = 300
DELAY = 1.0  # seconds
AT_ONCE = 3
LATER = 1_000_000  # numbers of calls made at the end begin here


@dataclass(frozen=True)
class End:
    """A way to end.

    Attributes:
        finale: what is run after the last call.
        code: with which the process ends; None is any.
        prelude: what is run before the first call.
        later: how many calls are made and acknowledged during the end, at least.
        calls: how many before it.
        until: the first version of Python without this way to end.
        configured: whether the program calls `configure` first.
    """

    finale: str = ""
    code: int | None = 0
    prelude: str = ""
    later: int = 0
    calls: int = CALLS
    until: str = "9.9"
    configured: bool = True


ENDS = {
    "the last line": End(),
    "sys.exit": End("sys.exit(3)", 3),
    "os._exit": End("os._exit(3)", 3),
    "an unhandled exception": End("raise ValueError('unhandled')", 1),
    "SIGTERM": End("os.kill(os.getpid(), 15); time.sleep(9)", -signal.SIGTERM),
    "SIGTERM, handled": End(
        "os.kill(os.getpid(), 15); time.sleep(9)",
        5,
        prelude="signal.signal(15, lambda *_: sys.exit(5))",
    ),
    "an exception in atexit": End("atexit.register(lambda: 1 / 0)"),
    "calls in atexit": End(f"atexit.register(call, {LATER})", later=3),
    "the first call in atexit": End(
        f"atexit.register(call, {LATER})", later=3, calls=-1, configured=False
    ),
    "calls in atexit, after ours": End(
        f"""
from sidelight.runtime import process
atexit.unregister(process._end)
atexit.register(call, {LATER})
atexit.register(process._end)
""",
        later=3,
    ),
    "a fork in atexit": End(
        f"""
def fork():
    pid = os.fork()
    call({LATER} + (10 if pid else 0))
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
atexit.register(fork)
""",
        later=6,
        until="3.12",  # which refuses it
    ),
    "a daemon thread that emits": End(
        f"""
endless = Caller(replace(Order.received(), first=Order.received().first + {LATER}, calls=0), 0)
threading.Thread(target=run, args=(endless.run,), daemon=True).start()
time.sleep(0.05)
""",
        None,  # the interpreter may give up on a daemon thread
        later=1,
    ),
    "a thread that emits on": End(
        f"""
def emit_on():
    for i in range(100):
        call({LATER} + 10 * i)
threading.Thread(target=emit_on).start()
""",
        later=300,
    ),
    "an executor that works on": End(
        f"""
from concurrent.futures import ThreadPoolExecutor
pool = ThreadPoolExecutor(2)
for i in range(50):
    pool.submit(call, {LATER} + 10 * i)
""",
        later=150,
    ),
    "__del__ while the interpreter is taken apart": End(
        f"""
class Last:
    def __del__(self):
        call({LATER})
last = Last()
last.circle = last
""",
        later=3,
    ),
}
ELSEWHERE = [
    "SIGTERM, handled",
    "the first call in atexit",
    "calls in atexit, after ours",
    "a daemon thread that emits",
    "__del__ while the interpreter is taken apart",
]
"""The ends that the short form tries with the other versions of Python."""


def python(version):
    found = interpreter(version)
    if found is None:
        pytest.skip(how_to_get(version))
    return found


def ends(store, version, names, progress):
    """Run a program for each way to end, some at a time. Return the programs."""
    programs = []
    for start in range(0, len(names), AT_ONCE):
        progress(f"end {start} of {len(names)}")
        with contextlib.ExitStack() as stack:
            started = []
            for i, name in enumerate(names[start : start + AT_ONCE], start):
                end, order = ENDS[name], Order(first=10 * LATER * i)
                order = replace(order, calls=end.calls, prelude=end.prelude, finale=end.finale)
                order = replace(order, configure={} if end.configured else None)
                program = stack.enter_context(running(store, order=order, python=version))
                started.append((name, end, program))
            for name, end, program in started:
                code = program.end()
                assert end.code is None or code == end.code, f"{name}: {code}, {program.told()}"
                made = program.calls - max(0, end.calls)
                assert made >= end.later, f"{name}: {made} calls at the end, {program.told()}"
                programs.append(program)
    return programs


@pytest.mark.parametrize("version", VERSIONS)
def test_ways_to_end(version, store, full, progress, settled):
    names = ELSEWHERE if not full and version != HERE else list(ENDS)
    names = [name for name in names if version < ENDS[name].until] * (10 if full else 1)
    programs = ends(store, python(version), names, progress)
    settled(18, f"ends of a process, {version}", store, *programs, injected=len(names))


@pytest.mark.parametrize("version", VERSIONS)
def test_a_program_of_a_few_lines_has_delivered_at_its_end(version, tmp_path, row):
    """The relay is still being imported at the end. One of three attempts must deliver all.

    The prelude imports SQLAlchemy, because that import takes most of the time.
    """
    for attempt in range(3):
        store = f"sqlite:///{tmp_path / f'{attempt}.db'}"
        order = Order(calls=5, configure=None, prelude="import sqlalchemy.engine.create")
        with running(store, order=order, python=python(version)) as program:
            assert program.end() == 0, program.told()
        if stored(store) == program.calls:
            break
    assert stored(store) == program.calls, program.told()
    row(18, f"end at once, {version}", injected=1, verdict=judge(store, program))
    nothing_left(store)


def test_the_next_process_delivers(store, row):
    dead = Order(calls=CALLS, finale="os.kill(os.getpid(), 9)", configure={"relay": "external"})
    with running(store, order=dead) as killed:
        assert killed.end() == -signal.SIGKILL
    assert stored(store) == 0
    with running(store, order=Order(first=LATER, pause=0.01)) as living:
        living.emit(1)
        caught_up(store, killed, living)
        living.stop()
    row(18, "killed, then the next process", injected=1, verdict=judge(store, killed, living))
    nothing_left(store)


@contextlib.contextmanager
def silent_collector():
    """Yield the URL of a server that accepts requests and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@contextlib.contextmanager
def locked(path):
    """Hold an exclusive lock on the store."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield


def timed(store, number, end, version, environment):
    """Return the seconds from the last line of a program to its end, and the program."""
    order = Order(first=number * LATER, calls=CALLS, pause=0.001, prelude=end.prelude)
    order = replace(order, finale=f"{TELL_WHEN}{end.finale}")
    with running(store, order=order, python=version, environment=environment) as program:
        took = seconds_of_the_end(program)
        assert program.process.returncode == end.code, program.told()
    return took, program


def once(store):
    """Return the errors of ``sidelight relay --once``, which leaves records for the Collector."""
    ran = sidelight("relay", "--once", "--store", store)
    assert ran.code == 1
    return ran.err


def delays(store, full, environment):
    """Let programs end. Return them, and the longest delay in seconds compared with a twin.

    The best of three attempts counts, because a busy machine may delay a single end.
    """
    versions = VERSIONS if full else [HERE]
    names = ("the last line", "SIGTERM, handled") if full else ("SIGTERM, handled",)
    found = [name for version in versions if (name := interpreter(version))]
    programs, longest = [], 0.0
    for name, version in itertools.product(names, found):
        took = []
        while len(took) < 3 and (not took or took[-1] > DELAY):
            off = {"SIDELIGHT_DISABLED": "1"}
            twin, _ = timed(store, 0, ENDS[name], version, off)
            order = len(programs), ENDS[name], version, environment
            seconds, program = timed(store, *order)
            programs.append(program)
            took.append(seconds - twin)
        longest = max(longest, min(took))
    return programs, longest


def test_where_all_answer_all_is_delivered_before_the_end(store, full, row):
    programs, longest = delays(store, full, {})
    assert stored(store) == sum(program.calls for program in programs)
    fault = f"end, {longest:.2f} s more"
    row(18, fault, injected=len(programs), verdict=judge(store, *programs))
    nothing_left(store)
    assert longest < DELAY


@pytest.mark.parametrize("dead", ["store locked", "Collector silent", "store and Collector"])
def test_where_nobody_answers_the_end_is_not_delayed(dead, tmp_path, full, row):
    path = tmp_path / "events.db"
    store = f"sqlite:///{path}"
    with contextlib.ExitStack() as stack:
        environment = {}
        if "Collector" in dead:
            environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = stack.enter_context(silent_collector())
        if "store" in dead:
            stack.enter_context(locked(path))
        programs, longest = delays(store, full, environment)
    if "Collector" in dead:
        assert "for traces" in once(store)
    else:
        deliver(store)
    fault = f"end, {dead}: {longest:.2f} s more"
    row(18, fault, injected=len(programs), verdict=judge(store, *programs))
    assert longest < DELAY
