"""Serve the pages until Ctrl-C or SIGTERM."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Final
from urllib.parse import urlencode

import uvicorn

from sidelight.exceptions import ConfigurationError, QueryError
from sidelight.page.beside import Beside
from sidelight.page.door import Door, Guarded, is_loopback
from sidelight.page.site import Site
from sidelight.store import Store

_ENDS_WITHIN: Final = 5  # seconds for requests that are being answered


def serve(
    store: Store,
    door: Door,
    beside: Beside,
    ready: Callable[[str], None],
) -> None:
    """Serve the pages of a store until the process is asked to end.

    Args:
        store: opened for questions.
        door: where to listen, and the token.
        beside: what the pages know besides the store.
        ready: is called with the address to open, once the server listens.

    Raises:
        ConfigurationError: the address cannot be listened on.
        QueryError: the address needs a token, or the token is empty.
    """
    if door.token is None and not is_loopback(door.host):
        raise QueryError(
            argument="--host",
            problem=f"{door.host} can be reached from other machines",
            remedy="give a --token as well, or leave --host out",
        )
    if door.token is not None and not door.token.strip():
        raise QueryError(
            argument="--token",
            problem="an empty token lets everybody in",
            remedy="write a --token, or leave the option out",
        )
    listening = _listen(door)
    site = Site(store, beside, lambda: server.should_exit)
    server = uvicorn.Server(
        uvicorn.Config(
            Guarded(site.application(), door),
            log_config=None,  # an address in a log would hold the token
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_ENDS_WITHIN,
        )
    )
    shown = f"[{door.host}]" if ":" in door.host else door.host
    query = f"?{urlencode({'token': door.token})}" if door.token else ""
    ready(f"http://{shown}:{door.port}/{query}")
    server.run(sockets=[listening])


def _listen(door: Door) -> socket.socket:
    family = socket.AF_INET6 if ":" in door.host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((door.host, door.port))
        listening.listen()  # a request that comes before the server begins waits
    except OSError as error:
        listening.close()
        raise ConfigurationError(
            setting="port",
            problem=f"cannot listen on {door.host}:{door.port}: {error.strerror or error}",
            remedy="give another --port",
        ) from error
    return listening
