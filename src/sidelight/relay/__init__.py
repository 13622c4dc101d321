"""Drains the spool into each sink, with one worker and one cursor for each.

Delivery is at least once. A sink that is down holds up no other sink; a poison record is set aside
alone.
"""

from sidelight.relay.outbox_mover import Outbox
from sidelight.relay.relay import Relay

__all__ = ["Outbox", "Relay"]
