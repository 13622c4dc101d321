"""What happens to an open spool that a process leaves: at its end, or for another configuration."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from sidelight.emission import Ledger
from sidelight.host import guarded, monotonic
from sidelight.record import is_same_store, is_same_stream

if TYPE_CHECKING:
    from sidelight.relay import Relay
    from sidelight.settings import Settings
    from sidelight.spool import Spool


def is_same_place(before: Settings | None, now: Settings) -> bool:
    """Return whether the events of a process go on into the same store and stream."""
    return (
        before is not None
        and is_same_store(before.named_store, now.named_store)
        and is_same_stream(before.stream, now.stream)
    )


def deliver_and_close(
    spool: Spool | None,
    relay: Relay | None,
    until: float,
    ledger: Ledger,
    *,
    ended: bool,
) -> bool:
    """Deliver what a spool holds, and close it; return whether all threads have ended.

    Args:
        spool: none where nothing was open.
        relay: of the spool.
        until: when to stop.
        ledger: of the spool.
        ended: tell the store that nothing more comes from this process.
    """
    has_ended = True
    if relay is not None:
        relay.flush(0.75 * (until - monotonic()), patient=False)
        if spool is not None:  # a sink may have refused records meanwhile, and may do so later
            write_ledger = partial(ledger.write, spool, last=True, ended=ended)
            with guarded():
                write_ledger()
            relay.flush(0.5 * (until - monotonic()), patient=False)
            relay.housekeeping.ledger = write_ledger
        has_ended = relay.stop(until - monotonic())
    if spool is not None:  # the segments stay open while a thread is inside its library
        (spool.close if has_ended else spool.save)()
    return has_ended
