"""A WSGI application whose requests emit: ``gunicorn tests.support.serving:application``.

Loaded before the workers are forked (``--preload``), it has emitted, and its relay is running,
when they are. A request for ``/7`` makes the calls numbered from 700.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from tests.support.emitting import Caller, Order, prepare, run

CALLS = 10  # of a request

order = Order.received()
prepare(order)
run(Caller(replace(order, calls=20), 0).run)


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Make the calls of one request."""
    number = int(environ["PATH_INFO"].strip("/"))
    run(Caller(replace(order, first=100 * number, calls=CALLS), 0).run)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"done"]
