"""The conditions on events that every question takes, as the arguments of `Store`'s methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from sidelight.store.arguments import Id, Types


class Filters(TypedDict, total=False):
    """Conditions on events. An event must meet all that are given; None is no condition.

    Attributes:
        organization_id: the organization; "" for events without one.
        where: conditions on attributes: ``"words>100"``, ``["kind=mail", "words>100"]``. See
            `sidelight.store.attributes`.
        outcome: the outcome, or one of several.
        point: the function, ``package.module:Class.method``, or one of several.
        service: the service that emitted it (``OTEL_SERVICE_NAME``), or one of several.
        host: the machine or container that emitted it, or one of several.
    """

    organization_id: Id | None
    where: str | Sequence[str] | None
    outcome: Types | None
    point: Types | None
    service: Types | None
    host: Types | None


class EventFilters(Filters, total=False):
    """`Filters`, and two more.

    Attributes:
        type: the type, or one of several.
        trace_id: the trace; 32 hexadecimal digits.
    """

    type: Types | None
    trace_id: str | None
