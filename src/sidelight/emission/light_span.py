"""The light span: the current span of the OpenTelemetry context while a decorated function runs.

It implements `opentelemetry.trace.Span`, so that nesting, propagation and log correlation work. It
keeps only what the relay needs to build an exported span.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from contextvars import Token
from types import TracebackType
from typing import Any, Concatenate, Final, ParamSpec

from opentelemetry.trace import (
    Span,
    SpanContext,
    Status,
    StatusCode,
    TraceState,
)
from opentelemetry.util.types import Attributes, AttributeValue

from sidelight.emission.deferred import resolved
from sidelight.host import is_interrupt
from sidelight.record import (
    ARTIFACT_KEY,
    DEFAULT_LIMITS,
    MAX_SPAN_TEXT,
    ORGANIZATION_KEY,
    SPAN,
    Limits,
    error_details,
    error_type,
    exception_attributes,
    plain,
    status_description,
    text,
    w3c_flags,
)

_MAX_DEPTH: Final = 4
_BITS_64: Final = (1 << 64) - 1
_BITS_128: Final = (1 << 128) - 1
_ATTRIBUTES, _EVENTS, _LINKS = range(3)  # positions in the counts of dropped items
_wall: Final = time.time_ns
_text: Final = functools.partial(text, longest=MAX_SPAN_TEXT)
_P = ParamSpec("_P")


def _guarded(
    method: Callable[Concatenate[LightSpan, _P], None],
) -> Callable[Concatenate[LightSpan, _P], None]:
    """Count an attribute as dropped where setting it raises; the function must not notice."""

    @functools.wraps(method)
    def call(self: LightSpan, /, *args: _P.args, **kwargs: _P.kwargs) -> None:
        if not self.is_recording():
            return
        try:
            method(self, *args, **kwargs)
        except Exception as error:  # the guard: a foreign mapping, two threads at once
            if is_interrupt(error):
                raise
            self._drop(_ATTRIBUTES)

    return call


class LightSpan(Span):
    """One call of a point: its times, its ids, and what the function adds to its span.

    No method raises, and none has an effect after the end. Most spans keep most class defaults.

    Attributes:
        time: the wall clock at the start (ns).
        call: the monotonic clock at the start (ns).
        cost: what sidelight has taken of the caller's time so far (ns).
        context: the OpenTelemetry context inside the call.
        outer: the context around the call.
        details: what the function added to its span.
        foreign: the span of the application's provider, where that made one.
        tickets: the transactions that the call's events are to join.
        joining: the joins that are to be awaited.
    """

    limits: Limits = DEFAULT_LIMITS  # of this process: `Tracing.configure` sets them

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
    outer: Any = None
    details: dict[str, Any] | None = None
    trace_state: TraceState | None = None
    foreign: Span | None = None
    lost: Callable[[str, str, BaseException], None] | None = None
    ended: bool = False
    tickets: tuple[Any, ...] = ()
    joining: list[Any] | None = None

    def get_span_context(self) -> SpanContext:
        """Return ids and flags in OpenTelemetry's form."""
        return SpanContext(
            trace_id=int.from_bytes(self.trace, "big"),
            span_id=self.id,
            is_remote=False,
            trace_flags=w3c_flags(self.flags),
            trace_state=self.trace_state,
        )

    def is_recording(self) -> bool:
        """Return whether the span is sampled and has not ended."""
        return bool(self.flags & SPAN) and not self.ended

    @_guarded
    def set_attribute(self, key: str, value: AttributeValue) -> None:
        """Add an attribute to the span; where there are too many, the oldest are dropped."""
        self._set(key, value)

    @_guarded
    def set_attributes(self, attributes: Mapping[str, AttributeValue]) -> None:
        """Add attributes to the span."""
        for key, value in attributes.items():
            self._set(key, value)

    @_guarded
    def add_event(
        self, name: str, attributes: Attributes = None, timestamp: int | None = None
    ) -> None:
        """Add an event to the span, now or at ``timestamp`` (ns since 1970)."""
        at = timestamp if type(timestamp) is int and 0 <= timestamp < 1 << 63 else _wall()
        self._append("events", _EVENTS, [_text(str(name)), at, _copied(attributes)])

    @_guarded
    def add_link(self, context: SpanContext, attributes: Attributes = None) -> None:
        """Link the span to another one; a context without ids needs an attribute or a state."""
        if context and (context.is_valid or attributes or context.trace_state):
            trace_id, span_id = context.trace_id & _BITS_128, context.span_id & _BITS_64
            link = [f"{trace_id:032x}", span_id, int(context.is_remote), _copied(attributes)]
            self._append("links", _LINKS, link)

    @_guarded
    def update_name(self, name: str) -> None:
        """Give the span another name than the function's."""
        self._kept()["name"] = _text(str(name))

    @_guarded
    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """Set the status; OK is final, and UNSET changes nothing."""
        code = status.status_code if isinstance(status, Status) else status
        given = status.description if isinstance(status, Status) else description
        details = self._kept()
        if code is StatusCode.UNSET or details.get("status", [0])[0] == StatusCode.OK.value:
            return
        kept = _text(str(given)) if given and code is StatusCode.ERROR else None
        details["status"] = [code.value, kept]

    @_guarded
    def record_exception(
        self,
        exception: BaseException,
        attributes: Attributes = None,
        timestamp: int | None = None,
        escaped: bool = False,  # OpenTelemetry's signature
    ) -> None:
        """Record an exception that the function handled, with its traceback."""
        from traceback import format_exception  # noqa: PLC0415  # seldom needed

        known = {
            "exception.type": error_type(exception),
            "exception.message": error_details(exception)[1],
            "exception.stacktrace": "".join(format_exception(exception))[-MAX_SPAN_TEXT:],
            "exception.escaped": str(escaped),
        }
        self.add_event("exception", {**known, **(attributes or {})}, timestamp)

    def end(self, end_time: int | None = None) -> None:
        """Do nothing, because the span ends when the function does."""

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        """Record an exception that leaves a ``with span``; the span ends with the function."""
        if isinstance(exc_val, Exception):
            self.record_exception(exc_val, escaped=True)
            self.set_status(StatusCode.ERROR, status_description(error_details(exc_val)))

    def _kept(self) -> dict[str, Any]:
        if self.details is None:
            self.details = {}
        return self.details

    def _set(self, key: str, value: AttributeValue) -> None:
        if not isinstance(key, str) or not key:
            self._drop(_ATTRIBUTES)
            return
        kept = self._kept().setdefault("attributes", {})
        kept.pop(key, None)
        kept[_text(key)] = _value(value)
        most = self.limits.attributes
        while most is not None and len(kept) > most:  # a loop, because threads may add at once
            self._drop(_ATTRIBUTES)
            del kept[next(iter(kept))]

    def _append(self, name: str, place: int, item: list[Any]) -> None:
        kept = self._kept().setdefault(name, [])
        kept.append(item)
        most = (self.limits.events, self.limits.links)[place - 1]
        if most is not None and len(kept) > most:
            self._drop(place)
            del kept[0]

    def _drop(self, place: int) -> None:
        self._kept().setdefault("dropped", [0, 0, 0])[place] += 1

    def closing_details(self) -> dict[str, Any] | None:
        """End the span, and return what the function added to it."""
        details = self.details
        if self.trace_state:
            details = {**(details or {}), "trace_state": self.trace_state.to_header()}
        self.ended = True
        return details

    def end_foreign(
        self,
        error: BaseException | None,
        now: int,
        about: tuple[str, Mapping[str, str]],
        captured: Mapping[str, Any],
    ) -> None:
        """End the span that the application's provider made for this call.

        Args:
            error: the exception that the call raised.
            now: the monotonic clock at the end of the call (ns).
            about: the function's name, and the attributes' keys by the names of variables.
            captured: the values of those variables, as far as they were captured.
        """
        if (foreign := self.foreign) is None:
            return
        self.foreign = None
        try:
            if foreign.is_recording():
                self._describe(foreign, error, about, captured)
        except Exception as problem:  # noqa: BLE001  # a foreign span
            self._not_ended(problem)
        try:
            foreign.end(self.time + now - self.call)
        except Exception as problem:  # noqa: BLE001
            self._not_ended(problem)

    def _describe(
        self,
        foreign: Span,
        error: BaseException | None,
        about: tuple[str, Mapping[str, str]],
        captured: Mapping[str, Any],
    ) -> None:
        function, keys = about
        foreign.set_attribute("code.function.name", function)
        for variable, key in keys.items():
            if (value := resolved(captured.get(variable))) is not None:
                is_id = key in {ARTIFACT_KEY, ORGANIZATION_KEY}
                foreign.set_attribute(key, str(value) if is_id else value)
        if error is not None:
            details = error_details(error)
            foreign.set_attribute("error.type", details[0])
            foreign.add_event("exception", exception_attributes(details))
            foreign.set_status(Status(StatusCode.ERROR, status_description(details)))

    def _not_ended(self, problem: BaseException) -> None:
        if self.lost is not None:
            self.lost("span not ended", self.name, problem)


def _value(value: Any, depth: int = 0) -> Any:
    """Copy a value that OTLP can carry; make any other one `plain`."""
    kind = type(value)
    if kind is str:
        return _text(value)
    # Classes are compared by identity, because a metaclass may define `__hash__`.
    if value is None or kind is bool or kind is float or kind is bytes:
        return value
    if depth < _MAX_DEPTH:
        if kind is list or kind is tuple:
            return [_value(item, depth + 1) for item in tuple(value)]
        if kind is dict:
            items = tuple(value.items())
            return {_text(str(key)): _value(item, depth + 1) for key, item in items}
    return plain(value)


def _copied(attributes: Attributes) -> dict[str, Any]:
    return {_text(key): _value(item) for key, item in dict(attributes or {}).items() if key}
