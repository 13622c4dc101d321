"""`emits`, the decorator. What makes a point is imported at the first decoration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

from sidelight.exceptions import PointError, told_at_the_caller
from sidelight.points.expressions import Choice, Expression

F = TypeVar("F")


@told_at_the_caller
def emits(
    type: str | Choice | None = None,  # noqa: A002  # positional
    /,
    *,
    start: str | Choice | None = None,
    failure: str | Choice | None = None,
    mode: Literal["scheduled", "awaited"] = "scheduled",
    span: bool = True,
    transaction: Any = None,
    after_commit: Any = None,
    strict: bool = False,
    attributes: Mapping[str, Any] | None = None,
    **fields: Any,
) -> Callable[[F], F]:
    """Emit events, and make a span, each time the decorated function is called.

    Args:
        type: the event's type, emitted when the function succeeds. `choose` lets a value of the
            call decide the type.
        start: an event type that is emitted before the call.
        failure: an event type that is emitted when the function raises. The event has the
            exception's type and message. The exception goes on unchanged.
        mode: "scheduled" returns at once. "awaited" waits until the store acknowledges the event,
            at most until the deadline (10 ms), and never raises.
        span: whether the call makes a span in the trace.
        transaction: the caller's SQLAlchemy session or connection, psycopg connection, or alias of
            a Django database. The event on success is a row in the outbox of that database: it
            exists if and only if the transaction commits.
        after_commit: the same without an outbox. The event is emitted after the commit, and lost
            if the process dies between commit and emission.
        strict: with ``transaction=``, raise TransactionError where the event cannot be in the
            transaction. Otherwise such an event goes to the spool, and is counted.
        attributes: attributes by name, for names that are options as well (``mode``, ``start``) or
            no identifiers. Its values are those of ``fields``.
        fields: ``artifact_id`` and ``organization_id`` name the artifact and its organization.
            Every other field is an attribute. A value is a constant; a recorded expression
            (``arg.name``, ``result.id``, ``error.code``), where anything missing gives None; or a
            callable whose parameters have the names of the function's parameters, or ``result``
            or ``error``. Values are captured when the event is emitted: before the call for
            ``start=``, else after the call.

    Returns:
        A decorator for any kind of callable. It keeps the signature. Several decorators on one
        function make one wrapper and one span. With ``SIDELIGHT_DISABLED=1`` the decorator returns
        the function itself.

    Raises:
        PointError: at decoration; it names the function, the argument and the remedy.
    """
    if callable(type) and not isinstance(type, Expression):
        from sidelight.points.instrumentation import name_of  # noqa: PLC0415  # as below

        raise PointError(
            function=name_of(type),
            problem="@emits names no event",
            remedy='write it in parentheses: @emits("artifact_received")',
        )

    @told_at_the_caller
    def decorate(function: F) -> F:
        from sidelight.settings import disabled  # noqa: PLC0415  # slow to import

        if disabled():
            return function
        from sidelight.points.declaration import declare  # noqa: PLC0415
        from sidelight.points.instrumentation import instrument, name_of  # noqa: PLC0415

        name = name_of(function)
        declaration = declare(
            name,
            type,
            start,
            failure,
            mode,
            fields,
            attributes=attributes,
            span=span,
            transaction=transaction,
            after_commit=after_commit,
            strict=strict,
        )
        wrapper: F = instrument(function, (declaration,))
        return wrapper

    return decorate
