"""What programs that emit (`tests.support.emitting`) do differently: text for `Order.prelude`,
and one for `Order.finale`."""

PACED = """
call = Caller.call

async def paced(self, n, kind):
    await call(self, n, kind)
    if n % 4 == 0:
        sidelight.flush(30.0)

Caller.call = paced
"""
"""No faster than the store: what it has not got is never more than a few calls."""

TELL_WHEN = "print(time.monotonic(), file=sys.stderr, flush=True)\n"
"""The finale that `programs.seconds_of_the_end` looks for."""

SMALL = 48 * 1024 * 1024
"""A bound of the spool under which segments stay small."""


def padded(kilobytes: int) -> str:
    """Larger records, so that a bound is soon reached."""
    return f"\ndecorate(padding=['x' * 4000] * {kilobytes // 4})\n"
