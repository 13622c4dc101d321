"""Code for `Order.prelude` and `Order.finale` that changes programs of `tests.support.emitting`."""

from pathlib import Path

PACED = """
call = Caller.call

async def paced(self, n, kind):
    await call(self, n, kind)
    if n % 4 == 0:
        sidelight.flush(30.0)

Caller.call = paced
"""
"""Pace the calls by the store, so that it lacks only a few of them at any time."""


def with_room(most: int) -> str:
    """Pace the calls by the keeper, which a busy disk holds up: the spool stays below a size."""
    return f"""
call_with_room = Caller.call

async def wait_for_room(self, n, kind):
    while EMITTER.spool.usage() > {most}:
        time.sleep(0.01)
    await call_with_room(self, n, kind)

Caller.call = wait_for_room
"""


def gated(path: Path) -> str:
    """Let the first call wait for a file: until each program of a test has opened its spool."""
    return f"""
call_behind_gate = Caller.call

async def wait_for_gate(self, n, kind):
    while not os.path.exists({str(path)!r}):
        time.sleep(0.01)
    await call_behind_gate(self, n, kind)

Caller.call = wait_for_gate
"""


TELL_WHEN = "print(time.monotonic(), file=sys.stderr, flush=True)\n"
"""The finale that `programs.seconds_of_the_end` looks for."""

SMALL = 48 * 1024 * 1024
"""A bound of the spool under which segments stay small."""


def padded(kilobytes: int) -> str:
    """Make records larger, so that a bound is soon reached."""
    return f"\ndecorate(padding=['x' * 4000] * {kilobytes // 4})\n"
