"""The light span: what stands in the OpenTelemetry context while a decorated function runs.

It is a `opentelemetry.trace.Span` to everybody who looks, so that nesting, propagation and log
correlation work, and it keeps only what the relay needs to build the SDK's span from it. Where the
application has a TracerProvider of its own, the span is made by that one instead.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from opentelemetry.trace import (
    Span,
    SpanContext,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
)
from opentelemetry.util.types import Attributes, AttributeValue

from sidelight import adapter
from sidelight.emitter import Emitter
from sidelight.plain import error_type, plain
from sidelight.record import REMOTE_PARENT, SAMPLED, SPAN, random_bits
from sidelight.sampling import Sampling, sampling

SCOPE: Final = "sidelight"
KEPT: Final = SPAN | SAMPLED
_MOST: Final = 128  # attributes, events or links of one span, as the SDK's default limits have it
_clock: Final = time.perf_counter_ns
_wall: Final = time.time_ns
_get_context = adapter.get_context
_set_context = adapter.set_context
_with_span = adapter.with_span
_KEY: Final = adapter.SPAN_KEY


class LightSpan(Span):
    """One call of a point: its times, its ids, and what the function adds to its span.

    Times are in ns: ``time`` on the wall clock, ``call`` on the monotonic one. ``cost`` is what
    sidelight has taken of the caller's time so far. Most spans have none of what the class
    defaults below stand for.
    """

    name: str = ""
    trace: bytes = b""
    id: int = 0
    parent_id: int = 0
    flags: int = 0
    time: int = 0
    call: int = 0
    cost: int = 0
    token: Token[Any] | None = None
    context: Any = None
    details: dict[str, Any] | None = None
    trace_state: TraceState | None = None
    other: Span | None = None
    ended: bool = False

    # -- what the function inside may do -----------------------------------------------------

    def get_span_context(self) -> SpanContext:
        """Ids and flags, as OpenTelemetry hands them on."""
        return SpanContext(
            trace_id=int.from_bytes(self.trace, "big"),
            span_id=self.id,
            is_remote=False,
            trace_flags=TraceFlags(TraceFlags.SAMPLED if self.flags & SAMPLED else 0),
            trace_state=self.trace_state,
        )

    def is_recording(self) -> bool:
        """Whether what is set now will be exported."""
        return bool(self.flags & SPAN) and not self.ended

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        """Add an attribute to the span."""
        kept = self._detail("attributes", dict)
        if kept is not None and (key in kept or len(kept) < _MOST):
            kept[plain(key)] = plain(value)

    def set_attributes(self, attributes: Mapping[str, AttributeValue]) -> None:
        """Add attributes to the span."""
        for key, value in attributes.items():
            self.set_attribute(key, value)

    def add_event(self, name: str, attributes: Attributes = None, timestamp: int | None = None) -> None:
        """Add an event to the span, now or at ``timestamp`` (ns since 1970)."""
        events = self._detail("events", list)
        if events is not None and len(events) < _MOST:
            events.append([plain(name), timestamp or _wall(), plain(dict(attributes or {}))])

    def add_link(self, context: SpanContext, attributes: Attributes = None) -> None:
        """Link the span to another one."""
        links = self._detail("links", list)
        if links is not None and len(links) < _MOST:
            trace = context.trace_id.to_bytes(16, "big")
            links.append([trace, context.span_id, int(context.trace_flags), plain(dict(attributes or {}))])

    def update_name(self, name: str) -> None:
        """Give the span another name than the function's."""
        if (details := self._details()) is not None:
            details["name"] = plain(name)

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """Set the status: OK is final, UNSET changes nothing."""
        if isinstance(status, Status):
            status, description = status.status_code, status.description
        details = self._details()
        if details is None or status is StatusCode.UNSET:
            return
        if details.get("status", [0])[0] != StatusCode.OK.value:
            text = plain(description) if status is StatusCode.ERROR else None
            details["status"] = [status.value, text]

    def record_exception(
        self,
        exception: BaseException,
        attributes: Attributes = None,
        timestamp: int | None = None,
        escaped: bool = False,  # noqa: FBT001, FBT002  # OpenTelemetry's signature
    ) -> None:
        """Record an exception that the function handled itself, with its traceback."""
        if self.is_recording():
            stack = "".join(traceback.format_exception(exception))
            known = {
                "exception.type": error_type(exception),
                "exception.message": str(exception),
                "exception.stacktrace": stack,
                "exception.escaped": str(escaped),
            }
            self.add_event("exception", {**known, **(attributes or {})}, timestamp)

    def end(self, end_time: int | None = None) -> None:
        """Do nothing: the span ends when the function does."""

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        """Do nothing, for the same reason."""

    def _details(self) -> dict[str, Any] | None:
        if not self.flags & SPAN or self.ended:
            return None
        if self.details is None:
            self.details = {}
        return self.details

    def _detail(self, name: str, make: Callable[[], Any]) -> Any:
        details = self._details()
        return None if details is None else details.setdefault(name, make())

    # -- what the wrapper does ---------------------------------------------------------------

    def closing_details(self) -> dict[str, Any] | None:
        """What goes into the record besides times and ids; nothing is added after this."""
        details = self.details
        if self.trace_state:
            details = {**(details or {}), "trace_state": self.trace_state.to_header()}
        self.ended = True
        return details

    def leave_other(self, error: BaseException | None) -> None:
        """End the span that the application's provider made for this call."""
        if (other := self.other) is None:
            return
        if error is not None and other.is_recording():
            other.set_attribute("error.type", error_type(error))
            other.add_event(
                "exception",
                {"exception.type": error_type(error), "exception.message": str(error)},
            )
            other.set_status(Status(StatusCode.ERROR, f"{error_type(error)}: {error}"))
        other.end()


class Bound(NamedTuple):
    """The defaults that `bind` gives to what is emitted inside it."""

    artifact_id: Any = None
    organization_id: Any = None


bound: Final[ContextVar[Bound]] = ContextVar("sidelight_bound", default=Bound())


class bind:  # noqa: N801  # used like a function, as contextlib's are
    """Give an artifact and an organization to every event emitted inside a ``with``.

    What an event names itself comes first; an inner `bind` fills in over an outer one.
    """

    def __init__(self, *, artifact_id: Any = None, organization_id: Any = None) -> None:
        self._given = Bound(plain(artifact_id), plain(organization_id))
        self._tokens: list[Token[Bound]] = []

    def __enter__(self) -> Self:
        outer = bound.get()
        pairs = zip(self._given, outer, strict=True)
        self._tokens.append(bound.set(Bound(*(own if own is not None else o for own, o in pairs))))
        return self

    def __exit__(self, *_: object) -> None:
        bound.reset(self._tokens.pop())


class Ambient(NamedTuple):
    """What an emission finds around it: the bound defaults and the current span's ids."""

    artifact_id: Any
    organization_id: Any
    trace: bytes | None
    span_id: int
    flags: int


def ambient() -> Ambient:
    """Look at the context of the caller."""
    trace, span_id, flags = ids_of(_get_context().get(_KEY))
    return Ambient(*bound.get(), trace, span_id, flags)


def ids_of(span: Any) -> tuple[bytes | None, int, int]:
    """Trace, span id and flags of a span of any make; (None, 0, 0) where there is none."""
    if span is None:
        return None, 0, 0
    if type(span) is LightSpan:
        return span.trace, span.id, span.flags & SAMPLED
    context = span.get_span_context()
    if not context.is_valid:
        return None, 0, 0
    flags = SAMPLED if context.trace_flags & TraceFlags.SAMPLED else 0
    return context.trace_id.to_bytes(16, "big"), context.span_id, flags


class Tracing:
    """How spans are begun in this process; `runtime` sets it from the environment."""

    def __init__(self) -> None:
        self.others = not adapter.PLAIN_CONTEXT
        self.sample(sampling({}))

    def sample(self, rules: Sampling) -> None:
        """Keep the spans that ``rules`` keep."""
        self.keep_root = rules.root
        self.parent_based = rules.parent_based

    def begin(self, emitter: Emitter, name: str, *, attach: bool) -> Callable[[], LightSpan]:
        """The function that the wrapper of one point calls first."""

        providers = adapter.providers

        def enter() -> LightSpan:
            begun = _clock()
            span = LightSpan()
            try:
                if providers._TRACER_PROVIDER is not None or self.others:  # noqa: SLF001
                    self._enter_other(span, name, attach=attach)
                else:
                    context = _get_context()
                    parent = context.get(_KEY)
                    span.id = random_bits(64)
                    if parent is None:
                        span.trace = trace = random_bits(128).to_bytes(16, "big")
                        span.flags = KEPT if self.keep_root(trace) else 0
                    elif type(parent) is LightSpan and self.parent_based:
                        span.trace = parent.trace
                        span.parent_id = parent.id
                        span.flags = parent.flags & KEPT
                        span.trace_state = parent.trace_state
                    else:
                        self._child(span, parent)
                    if not emitter.spans:
                        span.flags &= ~SPAN
                    span.context = context = _with_span(context, span)
                    if attach:
                        span.token = _set_context(context)
            except Exception as error:  # noqa: BLE001  # the guard
                emitter.lost("span not begun", name, error)
            span.time = _wall()
            span.call = now = _clock()
            span.cost = now - begun
            return span

        return enter

    def _child(self, span: LightSpan, parent: Span) -> None:
        context = parent.get_span_context()
        if not context.is_valid:
            span.trace = random_bits(128).to_bytes(16, "big")
            span.flags = KEPT if self.keep_root(span.trace) else 0
            return
        span.trace = context.trace_id.to_bytes(16, "big")
        span.parent_id = context.span_id
        span.trace_state = context.trace_state
        sampled = bool(context.trace_flags & TraceFlags.SAMPLED)
        if not self.parent_based:
            sampled = self.keep_root(span.trace)
        span.flags = (KEPT if sampled else 0) | (REMOTE_PARENT if context.is_remote else 0)

    def _enter_other(self, span: LightSpan, name: str, *, attach: bool) -> None:
        """Let the application's own provider make the span; the record then carries none."""
        from opentelemetry import context, trace  # noqa: PLC0415

        made = trace.get_tracer(SCOPE).start_span(name)
        span.other = made
        traced, span.id, span.flags = ids_of(made)
        span.trace = traced or b""
        span.context = trace.set_span_in_context(made, context.get_current())
        if attach:
            span.token = _set_context(span.context)


def outside(emitter: Emitter, name: str) -> Callable[[], LightSpan]:
    """Like `Tracing.begin`, for a point without a span: it takes the ids of the one around it."""

    def enter() -> LightSpan:
        begun = _clock()
        span = LightSpan()
        try:
            traced, span.id, span.flags = ids_of(_get_context().get(_KEY))
            span.trace = traced or b""
        except Exception as error:  # noqa: BLE001  # the guard
            emitter.lost("context not read", name, error)
        span.time = _wall()
        span.call = now = _clock()
        span.cost = now - begun
        return span

    return enter


tracing: Final = Tracing()
