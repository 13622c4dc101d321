"""What programs that emit (`tests.support.emitting`) do differently: text for `Order.prelude`."""

_PADDED = """
FIELDS["padding"] = ["x" * 4000] * {times}
scheduled = emits("scheduled", failure="scheduled_failed", **FIELDS)(plain)
awaited = emits("awaited", failure="awaited_failed", mode="awaited", **FIELDS)(plain)
scheduled_async = emits("scheduled_async", failure="async_failed", **FIELDS)(plain_async)
awaited_async = emits(
    "awaited_async", failure="awaited_async_failed", mode="awaited", **FIELDS
)(plain_async)
"""

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
    return _PADDED.format(times=kilobytes // 4)
