"""Row 15: no more memory (RLIMIT_AS), while programs emit."""

import resource
from pathlib import Path

import pytest
from tests.support.emitting import Order
from tests.support.preludes import padded
from tests.support.programs import caught_up, running

HUNGRY = """
def plain(n, thing):
    if isinstance(thing, BaseException):
        raise thing
    try:
        return bytearray(1 << 40 if n % 3 else 10)
    except MemoryError:
        return "there is none"
"""
"""The function itself asks for too much memory in two of three calls, and handles it."""
NO_SLACK = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "16384",
    "MALLOC_TRIM_THRESHOLD_": "0",
}
"""Free memory returns to the system at once, so that the limit takes effect."""


def tighten(program, headroom):
    """Limit the memory of a program to `headroom` bytes more than it has now."""
    pages = int(Path(f"/proc/{program.process.pid}/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + headroom
    resource.prlimit(program.process.pid, resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def loosen(program):
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.prlimit(program.process.pid, resource.RLIMIT_AS, unlimited)


@pytest.mark.parametrize("headroom", [0, 400_000, 3_000_000])
def test_memory_runs_out_while_programs_emit(headroom, store, full, progress, settled):
    """Lost records are counted, the others arrive, and the program recovers."""
    rounds = 20 if full else 2
    order = Order(pause=0.002, prelude=HUNGRY + padded(60))
    with running(store, order=order, environment=NO_SLACK) as program:
        program.emit(20)
        caught_up(store, program)
        for number in range(rounds):
            progress(f"round {number} of {rounds}")
            tighten(program, headroom)
            program.emit(150)
            loosen(program)
            program.emit(20)
        caught_up(store, program)
        assert program.stop() == 0, program.told()
    print(program.told())
    verdict = settled(15, f"memory, {headroom // 1000} kB left", store, program, injected=rounds)
    assert verdict.stored + verdict.let_go == verdict.calls
