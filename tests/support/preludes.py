"""What programs that emit (`tests.support.emitting`) do differently: text for `Order.prelude`."""

PACED = """
call = Caller.call

async def paced(self, n, kind):
    await call(self, n, kind)
    if n % 16 == 0:
        sidelight.flush(30.0)

Caller.call = paced
"""
"""No faster than the store: what it has not got is never more than a few calls."""


def padded(kilobytes: int) -> str:
    """Larger records, so that a bound is soon reached."""
    return f"\ndecorate(padding=['x' * 4000] * {kilobytes // 4})\n"
