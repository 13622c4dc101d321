"""Which outboxes the events of this process have joined, and which its relay drains.

The writer knows a connection, the relay knows a URL. Both find the same table, and its identity
tells whether they mean the same.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable
from typing import Final

_joined: Final[dict[frozenset[Hashable], str]] = {}
_drained: Final[dict[str, frozenset[Hashable]]] = {}
_paths: Final[set[str]] = set()


def joined(tables: Iterable[Hashable], name: str) -> None:
    """Note that an event has joined one of some tables, under the name of their database."""
    _joined.setdefault(frozenset(tables), name)


def joined_file(path: str) -> None:
    """Note that an event has joined the outbox of a SQLite file."""
    if path not in _paths:
        _paths.add(path)
        real = os.path.realpath(path)
        joined([real], real)


def drained(url: str, tables: Iterable[Hashable]) -> None:
    """Note which tables the relay finds at the URL of an outbox."""
    _drained[url] = frozenset(tables)


def outboxes_not_drained(urls: Iterable[str]) -> list[str]:
    """Return the names of the joined outboxes that are at none of some URLs.

    Where the relay has not found the tables at all of the URLs yet, there is no answer yet: an
    empty list.
    """
    found = [_drained.get(url) for url in urls]
    known = [tables for tables in found if tables is not None]
    if len(known) < len(found):
        return []
    return [
        name for tables, name in _joined.copy().items() if not any(tables & each for each in known)
    ]


def forget_outboxes() -> None:
    """Forget everything, because the process was configured anew or forked."""
    _joined.clear()
    _drained.clear()
    _paths.clear()
