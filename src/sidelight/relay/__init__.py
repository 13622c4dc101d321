"""Drains the spool into each sink, with one worker and one cursor for each.

Delivery is at least once. A sink that is down delays no other sink. A poison record goes to the
quarantine alone.
"""

from sidelight.relay.outbox_mover import Outbox
from sidelight.relay.relay import Relay

__all__ = ["Outbox", "Relay"]
