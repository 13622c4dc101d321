"""Compare the addresses of stores and of streams by what they mean, not as text.

A segment's header names the store of its writer, and a relay delivers the segments for its own
store. Two addresses are one store where they name the same SQLite file, by whatever path, or the
same PostgreSQL database, by whatever driver, login or parameters. Two streams are one where they
name the same topic, and one of the brokers.
"""

from __future__ import annotations

import os
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

_POSTGRES: Final = frozenset({"postgres", "postgresql"})


def is_same_store(one: object, other: object) -> bool:
    """Return whether two URLs mean one store; None means any store.

    A crafted header may hold anything: a value that is no text names no store.
    """
    if one is None or other is None or one == other:
        return True
    return _identity(one) == _identity(other)


def is_same_stream(one: object, other: object) -> bool:
    """Return whether two addresses mean one stream; None means any stream."""
    if one is None or other is None or one == other:
        return True
    if not isinstance(one, str) or not isinstance(other, str):
        return False
    return _topic(one) == _topic(other) and not _brokers(one).isdisjoint(_brokers(other))


def _topic(address: str) -> str:
    return address.partition("://")[2].partition("/")[2].partition("?")[0]


def _brokers(address: str) -> frozenset[str]:
    return frozenset(address.partition("://")[2].partition("/")[0].lower().split(","))


def _identity(url: object) -> tuple[Any, ...]:
    if not isinstance(url, str):
        return (url,)
    scheme, _, rest = url.partition("://")
    backend = scheme.partition("+")[0].lower()
    if backend == "sqlite":
        return backend, os.path.realpath(rest.removeprefix("/"))
    if backend not in _POSTGRES:
        return (url,)
    try:
        parsed = urlsplit(url)
        query = {name: values[-1] for name, values in parse_qs(parsed.query).items()}
        host = query.get("host") or unquote(parsed.hostname or "") or "localhost"
        port = query.get("port") or str(parsed.port or 5432)
    except ValueError:  # several hosts, or a misspelt port
        return (url,)
    named = query.get("dbname") or unquote(parsed.path.removeprefix("/"))
    database = named or query.get("user") or unquote(parsed.username or "")
    return "postgresql", host.lower(), port, database
