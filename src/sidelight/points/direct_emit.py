"""`emit`: an event from the middle of a function, without a decorator."""

from __future__ import annotations

import time
from collections.abc import Mapping
from threading import get_ident
from typing import Any, Final

from sidelight.emission import BINDING, EMITTER, Head, Receipt, ambient, with_bound
from sidelight.exceptions import (
    PointError,
    SidelightError,
    TransactionError,
    leave_own_frames_out,
)
from sidelight.host import PROCESS_MARK, begin_use, perf_counter_ns
from sidelight.points.declaration import check_emission
from sidelight.points.expressions import Expression
from sidelight.record import (
    SPAN,
    Allowance,
    Mode,
    Static,
    plain,
    random_bits,
    shared_by,
    short_name,
    text,
)
from sidelight.settings import disabled
from sidelight.transactions import Joining

_heads: Final[dict[tuple[str, ...], Head]] = {}
_WITHOUT_CODE: Final = (str, int, type(None), bool, float)
#: The threads that are making a value plain for `emit`.
_capturing: Final[set[int]] = set()
_clock = perf_counter_ns


def emit(
    type: str,  # noqa: A002  # as for `emits`
    *,
    artifact_id: Any = None,
    organization_id: Any = None,
    mode: Mode = "scheduled",
    transaction: Any = None,
    after_commit: Any = None,
    strict: bool = False,
    attributes: Mapping[str, Any] | None = None,
    **named: Any,
) -> Receipt:
    """Emit an event from the middle of a function, by the same path as a decorator's.

    It never raises, except for the TransactionError that ``strict=True`` asks for, and the one that
    tells that the INSERT has undone the caller's transaction. What `emits` refuses is refused here
    too: the event is lost, the loss is counted (``emit refused``), and in tests it is raised.

    Args:
        type: the event's type.
        artifact_id: the artifact that the event is about, as text or anything with a plain form.
        organization_id: the organization that the artifact belongs to. An event without one gets
            the artifact's.
        mode: "awaited" gives the store the rest of the deadline to acknowledge the event.
        transaction: as for `emits`. On an asynchronous connection the event joins when the receipt
            is awaited. If the receipt is never awaited, the event goes to the spool with a label.
        after_commit: as for `emits`.
        strict: as for `emits`.
        attributes: attributes by name, for names that are arguments as well (``mode``).
        named: further attributes.

    Returns:
        A receipt. It is empty (``str(receipt) == ""``) when the event was lost, which is counted,
        and where ``SIDELIGHT_DISABLED`` is set.
    """
    if disabled():
        return Receipt(EMITTER.watermark, None, 0, 0, 0.0)
    begun = _clock()
    if not PROCESS_MARK[0]:
        EMITTER.abandon()
    now, bits, position = time.time_ns(), random_bits(64), None
    costs = EMITTER.costs_of("sidelight:emit")
    try:
        try:
            head = _head(type, mode, named)
            if (
                attributes is not None
                or strict
                or transaction is not None
                or after_commit is not None
            ):
                check_emission(
                    type, mode, named, attributes, transaction, after_commit, strict=strict
                )
                named = {**named, **(attributes or {})}
            shared = shared_by(len(named))
            values = {name: _captured(value, shared) for name, value in named.items()} or None
            around = ambient()
            moment = (
                now,
                bits,
                _captured(artifact_id if artifact_id is not None else around.artifact_id),
                _captured(
                    organization_id if organization_id is not None else around.organization_id
                ),
                None,
                around.trace,
                around.span_id,
                0,
                around.flags & ~SPAN,
                values if not BINDING.has_attributes else with_bound(values),
                None,
            )
            if transaction is not None or after_commit is not None:
                joined = _join(head, moment, transaction, after_commit, strict=strict)
                costs.add(_clock() - begun)
                return joined
            if EMITTER.write(head, moment):
                position = EMITTER.spool.position()
        except Exception as error:  # noqa: BLE001  # the guard
            _lost(error, type)
    except SidelightError as error:
        leave_own_frames_out(error)
        raise
    receipt = EMITTER.receipt(now, bits, position, spent=_clock() - begun)
    if mode == "awaited":
        receipt.wait()
    costs.add(_clock() - begun)
    return receipt


def _captured(value: Any, shared: Allowance | None = None) -> Any:
    """Return the plain form of a value; a name of its class where that form is being made already.

    The plain form may need the value's ``__repr__``, and that may emit the value again.
    """
    kind = type(value)
    if any(kind is each for each in _WITHOUT_CODE):  # a metaclass may define `__hash__`
        return plain(value, shared=shared)
    if kind is Expression:
        raise PointError(
            function="emit", problem=f"{value!r} is for decorators", remedy="give the value itself"
        )
    thread = get_ident()
    if thread in _capturing:
        return f"<{short_name(kind)}>"
    _capturing.add(thread)
    try:
        return plain(value, shared=shared)
    finally:
        _capturing.discard(thread)


def _lost(error: Exception, type_: Any) -> None:
    """Count an event that could not be emitted; raise where a test or ``strict=True`` asks for it.

    Raises:
        TransactionError: the event cannot join the transaction.
        InstrumentationError: in strict mode.
    """
    if isinstance(error, TransactionError):
        raise error
    reason = "emit refused" if isinstance(error, PointError) else "internal error"
    EMITTER.lost(reason, _named(type_), error, ran="sidelight")


def _named(type_: Any) -> str:
    """Return the call of `emit` in a loss."""
    return f"emit({text(type_, 80)!r})" if isinstance(type_, str) else "emit"


def _join(
    head: Head, moment: tuple[Any, ...], transaction: Any, after_commit: Any, *, strict: bool
) -> Receipt:
    """Put the event into the caller's transaction."""
    joining = Joining("sidelight:emit", strict=strict, after_commit=after_commit is not None)
    ticket = joining.enlist(after_commit if transaction is None else transaction)
    return ticket.receipt(head, moment)


def _head(type_: str, mode: Mode, named: Mapping[str, Any]) -> Head:
    """Return the head of an event; the names of its attributes are checked once."""
    key = (type_, mode, *named)
    try:
        head = _heads.get(key)
    except TypeError:  # a type or mode without a hash, which the check refuses
        head = None
    if head is None:
        check_emission(type_, mode, named, None, None, None, strict=False)
        head = Head(Static(plain(type_), "sidelight:emit", mode, "emitted", None))
        if len(_heads) < 10_000:
            _heads[key] = head
    return head


begin_use()  # last, because that imports `emit`
