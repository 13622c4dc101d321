"""The oracle over receipts: each emission is stored, or counted as lost, and its receipt says so.

For programs that keep the receipts of `sidelight.emit` instead of making the calls of
`tests.support.emitting`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from tests.support.balance import Balance, balance
from tests.support.emitting import LOSSES

from sidelight import Store

#: What a program begins with: ``tell(receipt)`` keeps a receipt, ``write(path)`` all of them.
TELLS = """
import json, os
receipts = []

def tell(receipt):
    receipts.append(receipt)
    return receipt

def write(path, **more):
    told = [[str(receipt), receipt.state] for receipt in receipts]
    with open(path, "w") as file:
        json.dump({"receipts": told, **more}, file)
"""
REFUSED = ("refused by store", "older than the store keeps", "unreadable record")
"""The reasons for which a relay sets an event aside."""


@dataclass
class Told:
    """The receipts of programs.

    Attributes:
        receipts: the id and the last state of each receipt.
        flushed: whether `flush` said that everything is in the store; None where it was not asked.
        more: what else the programs have written.
    """

    receipts: list[tuple[str, str]] = field(default_factory=list)
    flushed: bool | None = None
    more: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def read(cls, paths: Iterable[Path]) -> Self:
        """Read what programs have written."""
        told = cls()
        for path in paths:
            content = json.loads(path.read_text())
            told.receipts += map(tuple, content.pop("receipts"))
            if (flushed := content.pop("flushed", None)) is not None:
                told.flushed = flushed if told.flushed is None else told.flushed and flushed
            told.more.append(content)
        return told


def judge_receipts(store: str, told: Told, *, others: int = 0) -> Balance:
    """Compare receipts with a store to which everything was delivered.

    Args:
        store: its URL.
        told: the receipts.
        others: events of other programs in the same store.
    """
    with Store(store) as opened:
        stored = [event.event_id for event in opened.events()]
        counted = Counter({loss.reason: 0 for loss in opened.losses()})
        for loss in opened.losses():
            counted[loss.reason] += loss.count
    ids = [event_id for event_id, state in told.receipts if event_id]
    assert len(set(ids)) == len(ids), "an id comes twice"
    for event_id, state in told.receipts:
        assert (state == "lost") == (not event_id)
        if state in {"stored", "refused"}:
            assert (event_id in stored) == (state == "stored"), f"{state}: {event_id}"
    said = sum(counted[reason] for reason in (*LOSSES, *REFUSED))
    emitted = [event_id or number for number, (event_id, _) in enumerate(told.receipts)]
    found = balance(emitted, stored, counted=said)
    assert not found.lost, f"{found.missing} are not in the store; counted: {counted}"
    assert not told.flushed or set(ids) <= set(stored), "flush() was True"
    assert found.beside == others, "events that were not emitted"
    return found
