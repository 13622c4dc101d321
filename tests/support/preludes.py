"""Code for `Order.prelude` and `Order.finale` that changes programs of `tests.support.emitting`."""

PACED = """
call = Caller.call

async def paced(self, n, kind):
    await call(self, n, kind)
    if n % 4 == 0:
        sidelight.flush(30.0)

Caller.call = paced
"""
"""Pace the calls by the store, so that it lacks only a few of them at any time."""

TELL_WHEN = "print(time.monotonic(), file=sys.stderr, flush=True)\n"
"""The finale that `programs.seconds_of_the_end` looks for."""

SMALL = 48 * 1024 * 1024
"""A bound of the spool under which segments stay small."""


def padded(kilobytes: int) -> str:
    """Make records larger, so that a bound is soon reached."""
    return f"\ndecorate(padding=['x' * 4000] * {kilobytes // 4})\n"
