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


def waiting(condition: str) -> str:
    """Let each call wait until an expression of the program is true."""
    return f"""
def waiting(call):
    async def wait(self, n, kind):
        while not ({condition}):
            time.sleep(0.01)
        await call(self, n, kind)

    return wait

Caller.call = waiting(Caller.call)
"""


def with_room(most: int) -> str:
    """Pace the calls by the keeper, which a busy disk holds up: the spool stays below a size."""
    return waiting(f"EMITTER.spool.usage() <= {most}")


def gated(path: Path) -> str:
    """Let the first call wait for a file: until each program of a test has opened its spool."""
    return waiting(f"os.path.exists({str(path)!r})")


TELL_WHEN = "print(time.monotonic(), file=sys.stderr, flush=True)\n"
"""The finale that `programs.seconds_of_the_end` looks for."""

SMALL = 48 * 1024 * 1024
"""A bound of the spool under which segments stay small."""


def padded(kilobytes: int) -> str:
    """Make records larger, so that a bound is soon reached."""
    return f"\ndecorate(padding=['x' * 4000] * {kilobytes // 4})\n"
