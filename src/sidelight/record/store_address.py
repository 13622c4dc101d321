"""Compare the addresses of stores and of streams by what they mean, not as text.

A segment's header names the store of its writer, and a relay delivers the segments for its own
store. Two addresses are one store where they name the same SQLite file, by whatever path, or the
same PostgreSQL database, by whatever driver, login or parameters, except those that lead to another
server (``hostaddr``, ``service``). No host name is resolved, because the answer may change; only
``127.0.0.1`` is ``localhost``. Two streams are one where they
name the same topic, and one of the brokers.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

DEFAULT_SPOOL: Final = "spool-"
"""The prefix of the default spools in a user's state directory."""
BESIDE: Final = "-spool"
"""The suffix of the default spool beside a SQLite file."""
_LOOPBACK: Final = {"127.0.0.1": "localhost"}
_POSTGRES: Final = frozenset({"postgres", "postgresql"})


def is_same_store(one: object, other: object) -> bool:
    """Return whether two URLs mean one store; None means any store.

    A crafted header may hold anything: a value that is no text names no store.
    """
    if one is None or other is None or one == other:
        return True
    return _place(one) == _place(other)


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


def spool_beside(file: Path) -> Path:
    """Return the default spool of the store in a SQLite file."""
    return file.with_name(f"{file.name}{BESIDE}")


def default_spool(url: str, shown: str) -> str:
    """Return the name of a store's default spool, the same for each spelling of a database.

    Args:
        url: of the store, or the address of a stream.
        shown: the same without a password, so that a header's URL leads to the same spool.
    """
    place = _place(url)
    text = shown if len(place) == 1 else "/".join(place)
    return f"{DEFAULT_SPOOL}{zlib.crc32(text.encode()):08x}"


def wrong_port(hosts: str) -> str:
    """Return the first port of ``host:port,host:port`` that is none, or ""; IPv6 is in brackets."""
    for host in hosts.split(","):
        port = host.rpartition("]")[2].partition(":")[2]
        if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
            return port
    return ""


def _place(url: object) -> tuple[Any, ...]:
    """Return what identifies the store that a URL names, however it is spelt."""
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
    elsewhere = (query[name] for name in ("hostaddr", "service") if name in query)
    return "postgresql", _LOOPBACK.get(host, host.lower()), port, database, *elsewhere
