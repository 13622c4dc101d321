"""The methods of a psycopg connection that are overlaid, so that its watch sees each exchange."""

from __future__ import annotations

import weakref
from typing import Any, Final, TypeAlias

from psycopg import AsyncConnection, Connection

from sidelight.transactions import control
from sidelight.transactions.psycopg.watch import Watch

AnyConnection: TypeAlias = Connection[Any] | AsyncConnection[Any]

_ATTRIBUTE: Final = "_sidelight_watch"
#: The same watch before its overlays are there, so that all threads find one.
_BEGUN: Final = "_sidelight_watch_begun"


def watch(connection: AnyConnection) -> Watch:
    """Watch a connection; once for each, also where several threads ask at the same time."""
    known: Watch | None = connection.__dict__.get(_ATTRIBUTE)
    if known is not None:
        return known
    encoding = None if connection.closed else connection.info.parameter_status("server_encoding")
    is_async = isinstance(connection, AsyncConnection)
    new = Watch(is_async=is_async, dialect=control.in_postgresql(encoding))
    found: Watch = connection.__dict__.setdefault(_BEGUN, new)
    found.begin(connection.pgconn.transaction_status, is_busy=connection.lock.locked())
    # A weak reference, because a cycle would keep the connection from being closed at once.
    overlays = _overlays(weakref.ref(connection), type(connection), found)
    # One call of C: after an interrupt all is there, or the next call begins anew.
    connection.__dict__.update(overlays)
    return found


def _overlays(reference: Any, kind: Any, found: Watch) -> dict[str, Any]:
    """Return what the connection has in its dictionary while it is watched."""

    def wait(gen: Any, *arguments: Any, **named: Any) -> Any:
        connection = reference()
        exchange = found.exchange(gen, connection)
        try:
            return kind.wait(connection, exchange, *arguments, **named)
        except BaseException:
            exchange.close()  # an interrupt has left it; the error would keep it
            raise

    async def wait_awaited(gen: Any, *arguments: Any, **named: Any) -> Any:
        connection = reference()
        exchange = found.exchange(gen, connection)
        try:
            return await kind.wait(connection, exchange, *arguments, **named)
        except BaseException:
            exchange.close()
            raise

    def _exec_command(command: Any, *arguments: Any, **named: Any) -> Any:
        connection = reference()
        gen = kind._exec_command(connection, command, *arguments, **named)  # noqa: SLF001
        return found.command(gen, command, connection)

    is_async = issubclass(kind, AsyncConnection)
    return {
        "wait": wait_awaited if is_async else wait,
        "_exec_command": _exec_command,
        _ATTRIBUTE: found,
    }
