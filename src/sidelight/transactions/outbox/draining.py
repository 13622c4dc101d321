"""Which outboxes the events of this process have joined, and which its relay drains.

The writer knows a connection, the relay knows a URL. Both find the same table, and its identity
tells whether they mean the same.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Hashable, Iterable
from typing import Final, NamedTuple

from sidelight.host import monotonic
from sidelight.transactions.outbox.table import FoundTable

_LATEST: Final = 20  # events whose ids are kept, of each outbox


class Joined(NamedTuple):
    """An outbox that events of this process have joined.

    Attributes:
        name: of its database.
        event_ids: of the latest events; some may have been rolled back.
        since: when the first event joined (`monotonic`).
    """

    name: str
    event_ids: deque[str]
    since: float


latest: Final[dict[Hashable, FoundTable]] = {}
"""The tables as a relay has last seen them, by their ids."""
_joined: Final[dict[frozenset[Hashable], Joined]] = {}
_drained: Final[dict[str, frozenset[Hashable]]] = {}
_paths: Final[dict[str, str]] = {}


def joined(tables: Iterable[Hashable], name: str, event_ids: Iterable[str]) -> None:
    """Note that events have joined one of some tables, under the name of their database."""
    key = frozenset(tables)
    known = _joined.get(key)
    if known is None:
        known = _joined.setdefault(key, Joined(name, deque(maxlen=_LATEST), monotonic()))
    known.event_ids.extend(event_ids)


def joined_file(path: str, event_ids: Iterable[str]) -> None:
    """Note that events have joined the outbox of a SQLite file."""
    real = _paths.get(path)
    if real is None:
        real = _paths[path] = os.path.realpath(path)
    joined([real], real, event_ids)


def drained(url: str, tables: Iterable[Hashable]) -> None:
    """Note which tables the relay finds at the URL of an outbox."""
    _drained[url] = frozenset(tables)


def outboxes_not_drained(urls: Iterable[str]) -> list[Joined]:
    """Return the joined outboxes that are at none of some URLs.

    Where the relay has not found the tables at all of the URLs yet, there is no answer yet: an
    empty list.
    """
    found = [_drained.get(url) for url in urls]
    known = [tables for tables in found if tables is not None]
    if len(known) < len(found):
        return []
    return [
        each for tables, each in _joined.copy().items() if not any(tables & some for some in known)
    ]


def forget_outboxes() -> None:
    """Forget everything, because the process was configured anew or forked."""
    _joined.clear()
    _drained.clear()
    latest.clear()
    _paths.clear()
