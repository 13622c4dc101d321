"""The light span: what stands in the OpenTelemetry context while a decorated function runs.

It is a `opentelemetry.trace.Span` to everybody who looks, so that nesting, propagation and log
correlation work, and it keeps only what the relay needs to build the SDK's span from it.
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

from sidelight.emission.deferred import known
from sidelight.host import from_outside
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

_DEEPEST: Final = 4
_BITS_64: Final = (1 << 64) - 1
_BITS_128: Final = (1 << 128) - 1
_AS_THEY_ARE: Final = frozenset({bool, float, bytes, type(None)})
_ATTRIBUTES, _EVENTS, _LINKS = range(3)  # places in the counts of what was dropped
_wall: Final = time.time_ns
_text: Final = functools.partial(text, longest=MAX_SPAN_TEXT)
_P = ParamSpec("_P")


def _guarded(
    method: Callable[Concatenate[LightSpan, _P], None],
) -> Callable[Concatenate[LightSpan, _P], None]:
    """Let nothing that is wrong with a value reach the function that set it."""

    @functools.wraps(method)
    def call(self: LightSpan, /, *args: _P.args, **kwargs: _P.kwargs) -> None:
        if not self.is_recording():
            return
        try:
            method(self, *args, **kwargs)
        except Exception as error:  # the guard: a stranger's mapping, two threads at once
            if from_outside(error):
                raise
            self._drop(_ATTRIBUTES)

    return call


class LightSpan(Span):
    """One call of a point: its times, its ids, and what the function adds to its span.

    Times are in ns: ``time`` on the wall clock, ``call`` on the monotonic one. ``cost`` is what
    sidelight has taken of the caller's time so far. Most spans have none of what the class
    defaults below stand for. No method raises; none has an effect after the end.
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
    other: Span | None = None
    lost: Callable[[str, str, BaseException], None] | None = None
    ended: bool = False
    #: The transactions that the call's events are to join, and the joins that are to be awaited.
    tickets: tuple[Any, ...] = ()
    joining: list[Any] | None = None

    # -- what the function inside may do -----------------------------------------------------

    def get_span_context(self) -> SpanContext:
        """Ids and flags, as OpenTelemetry hands them on."""
        return SpanContext(
            trace_id=int.from_bytes(self.trace, "big"),
            span_id=self.id,
            is_remote=False,
            trace_flags=w3c_flags(self.flags),
            trace_state=self.trace_state,
        )

    def is_recording(self) -> bool:
        """Whether what is set now will be exported."""
        return bool(self.flags & SPAN) and not self.ended

    @_guarded
    def set_attribute(self, key: str, value: AttributeValue) -> None:
        """Add an attribute to the span; the newest stay where there are too many."""
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
        """Set the status: OK is final, UNSET changes nothing."""
        code = status.status_code if isinstance(status, Status) else status
        words = status.description if isinstance(status, Status) else description
        details = self._kept()
        if code is StatusCode.UNSET or details.get("status", [0])[0] == StatusCode.OK.value:
            return
        told = _text(str(words)) if words and code is StatusCode.ERROR else None
        details["status"] = [code.value, told]

    @_guarded
    def record_exception(
        self,
        exception: BaseException,
        attributes: Attributes = None,
        timestamp: int | None = None,
        escaped: bool = False,  # OpenTelemetry's signature
    ) -> None:
        """Record an exception that the function handled itself, with its traceback."""
        from traceback import format_exception  # noqa: PLC0415  # seldom needed

        known = {
            "exception.type": error_type(exception),
            "exception.message": error_details(exception)[1],
            "exception.stacktrace": "".join(format_exception(exception))[-MAX_SPAN_TEXT:],
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
        """Note an exception that leaves a ``with span``; the span ends when the function does."""
        if isinstance(exc_val, Exception):
            self.record_exception(exc_val, escaped=True)
            self.set_status(StatusCode.ERROR, status_description(error_details(exc_val)))

    # -- keeping it --------------------------------------------------------------------------

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
        while most is not None and len(kept) > most:  # here, so that it holds among threads too
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

    # -- what the wrapper does ---------------------------------------------------------------

    def closing_details(self) -> dict[str, Any] | None:
        """What goes into the record besides times and ids; nothing is added after this."""
        details = self.details
        if self.trace_state:
            details = {**(details or {}), "trace_state": self.trace_state.to_header()}
        self.ended = True
        return details

    def leave_other(
        self,
        error: BaseException | None,
        now: int,
        about: tuple[str, Mapping[str, str]],
        captured: Mapping[str, Any],
    ) -> None:
        """End the span that the application's provider made for this call.

        Args:
            error: what the call raised.
            now: the monotonic clock at its end (ns).
            about: the function's name, and the attributes' keys by the names of variables.
            captured: those variables, as far as there are any.
        """
        if (other := self.other) is None:
            return
        self.other = None
        try:
            if other.is_recording():
                self._tell(other, error, about, captured)
        except Exception as problem:  # noqa: BLE001  # a stranger's span
            self._not_ended(problem)
        try:
            other.end(self.time + now - self.call)
        except Exception as problem:  # noqa: BLE001
            self._not_ended(problem)

    def _tell(
        self,
        other: Span,
        error: BaseException | None,
        about: tuple[str, Mapping[str, str]],
        captured: Mapping[str, Any],
    ) -> None:
        function, keys = about
        other.set_attribute("code.function.name", function)
        for variable, key in keys.items():
            if (value := known(captured.get(variable))) is not None:
                is_id = key in {ARTIFACT_KEY, ORGANIZATION_KEY}
                other.set_attribute(key, str(value) if is_id else value)
        if error is not None:
            details = error_details(error)
            other.set_attribute("error.type", details[0])
            other.add_event("exception", exception_attributes(details))
            other.set_status(Status(StatusCode.ERROR, status_description(details)))

    def _not_ended(self, problem: BaseException) -> None:
        if self.lost is not None:
            self.lost("span not ended", self.name, problem)


def _value(value: Any, depth: int = 0) -> Any:
    """A copy of what OTLP can carry (`plain` for all else); it cannot be changed later."""
    kind = type(value)
    if kind is str:
        return _text(value)
    if kind in _AS_THEY_ARE:
        return value
    if depth < _DEEPEST:
        if kind in {list, tuple}:
            return [_value(item, depth + 1) for item in tuple(value)]
        if kind is dict:
            items = tuple(value.items())
            return {_text(str(key)): _value(item, depth + 1) for key, item in items}
    return plain(value)


def _copied(attributes: Attributes) -> dict[str, Any]:
    return {_text(key): _value(item) for key, item in dict(attributes or {}).items() if key}
