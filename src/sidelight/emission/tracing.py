"""The current span, and how a call begins its own.

While a decorated function runs, a `LightSpan` is the current span of the OpenTelemetry context.
Where the application has its own TracerProvider, or another kind of context, that provider makes
the span instead.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from struct import Struct
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.trace import Span, SpanContext, TraceFlags

from sidelight.emission.emitter import Emitter
from sidelight.emission.light_span import LightSpan
from sidelight.emission.sampling import Sampling, sampling
from sidelight.host import (
    PLAIN_CONTEXT,
    PROCESS_MARK,
    SPAN_KEY,
    get_context,
    guarded,
    is_interrupt,
    perf_counter_ns,
    providers,
    with_span,
)
from sidelight.record import (
    RANDOM,
    REMOTE_PARENT,
    SAMPLED,
    SPAN,
    limits_from,
    random_bits,
    record_flags,
)
from sidelight.version import __version__

SCOPE: Final = "sidelight"
#: The flags of a new trace, whose id is random; an older OpenTelemetry API has no flag for that.
_NEW_TRACE: Final = RANDOM if hasattr(TraceFlags, "RANDOM_TRACE_ID") else 0
KEPT: Final = SPAN | SAMPLED | _NEW_TRACE
_halves: Final = Struct(">QQ").pack
#: The first half of a trace id follows the clock, so that the traces of one time lie beside each
#: other in the index of a store. Against this number, it tells no stranger the host's uptime. The
#: second half is random, as W3C asks.
_ORIGIN: Final = random_bits(64)
_INHERITED: Final = SPAN | SAMPLED | RANDOM  # by the children of a light span
_clock: Final = perf_counter_ns
_wall: Final = time.time_ns


def ids_of(span: Any) -> tuple[bytes | None, int, int]:
    """Read trace id, span id and flags of any kind of span; (None, 0, 0) without a valid one."""
    if span is None:
        return None, 0, 0
    if type(span) is LightSpan:
        return span.trace, span.id, span.flags & (SAMPLED | RANDOM)
    try:
        context = span.get_span_context()
        if not context.is_valid:
            return None, 0, 0
        return _trace_bytes(context), context.span_id, record_flags(context.trace_flags)
    except Exception as error:  # a foreign span
        if is_interrupt(error, ran="library"):
            raise
        return None, 0, 0


def _trace_bytes(context: SpanContext) -> bytes:
    return context.trace_id.to_bytes(16, "big")


class Tracing:
    """Begins the spans of this process.

    The environment is read at the first call, or when `runtime` configures the process.

    Attributes:
        checks_provider: whether a call must look for a foreign provider before it makes a light
            span.
        disabled: make no spans.
        configured: whether the environment has been read.
        keep_root: decides from the trace id whether a root span is kept.
        parent_based: whether a span that has a parent follows it instead.
    """

    def __init__(self) -> None:
        self.checks_provider = True
        self.disabled = False
        self.configured = False
        self.keep_root: Callable[[bytes], bool] = lambda _: True
        self.parent_based = True
        self._provider_named = False
        self._provider_loaded = False
        self._tracer: trace.Tracer | None = None
        self._tracer_of: object = None

    def configure(self, environment: Mapping[str, str]) -> None:
        """Apply the sampling and the limits that the ``OTEL_*`` variables set."""
        LightSpan.limits = limits_from(environment)
        named = bool(os.environ.get("OTEL_PYTHON_TRACER_PROVIDER"))
        self._provider_named = named and not self._provider_loaded
        self.sample(sampling(environment))

    def sample(self, rules: Sampling) -> None:
        """Apply sampling rules."""
        self.keep_root = rules.root
        self.parent_based = rules.parent_based
        self.disabled = rules.disabled
        self.checks_provider = self.disabled or self._provider_named or not PLAIN_CONTEXT
        self.configured = True

    def begin(self, emitter: Emitter, name: str) -> Callable[[], LightSpan]:
        """Make the function that the wrapper of one point calls first.

        The wrapper then makes ``span.context`` current, and ``span.outer`` again at the end. The
        wrapper does so itself, so that no interrupt can come between the change and its undoing.
        """

        def enter() -> LightSpan:
            begun = _clock()
            span = LightSpan()
            try:
                if not PROCESS_MARK[0]:  # before ids are drawn from the parent's generator
                    emitter.abandon()
                span.context = span.outer = context = get_context()
                if (
                    providers._TRACER_PROVIDER is None  # noqa: SLF001
                    and not self.checks_provider
                ) or not self._begin_foreign(span, emitter, name):
                    parent = context.get(SPAN_KEY)
                    span.id = random_bits(64)
                    if parent is None:
                        span.trace = trace_id = _halves(begun ^ _ORIGIN, random_bits(64))
                        span.flags = KEPT if self.keep_root(trace_id) else _NEW_TRACE
                    elif type(parent) is LightSpan and self.parent_based:
                        span.trace = parent.trace
                        span.parent_id = parent.id
                        span.flags = parent.flags & _INHERITED
                        span.trace_state = parent.trace_state
                    else:
                        self._child(span, parent)
                    if not emitter.spans and span.flags & SPAN:
                        span.flags &= ~SPAN
                        emitter.count("spool nearly full: span left out", name)
                    span.context = with_span(context, span)
            except Exception as error:  # noqa: BLE001  # the guard
                provided = self.checks_provider or providers._TRACER_PROVIDER is not None  # noqa: SLF001
                foreign = provided and self.configured  # a first call reads the environment
                emitter.lost(
                    "span not begun", name, error, ran="library" if foreign else "sidelight"
                )
            span.time = _wall()
            span.call = now = _clock()
            span.cost = now - begun
            return span

        return enter

    def _child(self, span: LightSpan, parent: Span) -> None:
        """Begin a span under a foreign parent, or by rules that ignore the parent."""
        context = parent.get_span_context()
        if not context.is_valid:
            span.trace = _halves(_clock() ^ _ORIGIN, random_bits(64))
            span.flags = KEPT if self.keep_root(span.trace) else _NEW_TRACE
            return
        span.trace = _trace_bytes(context)
        span.parent_id = context.span_id
        span.trace_state = context.trace_state
        flags = record_flags(context.trace_flags)
        kept = bool(flags & SAMPLED) if self.parent_based else self.keep_root(span.trace)
        span.flags = (
            (SPAN | SAMPLED if kept else 0)
            | (flags & RANDOM)
            | (REMOTE_PARENT if context.is_remote else 0)
        )

    def _begin_foreign(self, span: LightSpan, emitter: Emitter, name: str) -> bool:
        """Let the application's provider begin the span; False where there is no provider."""
        if not self.configured:
            self.configure(os.environ)
        if self._provider_named:
            self._load_provider(emitter, name)
        provider = providers._TRACER_PROVIDER  # noqa: SLF001
        if provider is None and not self.checks_provider:
            return False
        if provider is None:  # disabled, or in a context that cannot hold a light span
            traced, span.id, span.flags = ids_of(get_context().get(SPAN_KEY))
            span.trace = traced or b""
            return True
        if self._tracer is None or self._tracer_of is not provider:
            self._tracer, self._tracer_of = trace.get_tracer(SCOPE, __version__), provider
        span.name, span.lost = name, emitter.lost
        span.foreign = made = self._tracer.start_span(name)
        traced, span.id, span.flags = ids_of(made)
        span.trace = traced or b""
        span.context = trace.set_span_in_context(made)
        return True

    def _load_provider(self, emitter: Emitter, name: str) -> None:
        """Load the provider that ``OTEL_PYTHON_TRACER_PROVIDER`` names, once."""
        self._provider_named, self._provider_loaded = False, True
        self.checks_provider = self.disabled or not PLAIN_CONTEXT
        with guarded(partial(emitter.lost, "tracer provider not loaded", name)):
            trace.get_tracer_provider()


def begin_without_span(emitter: Emitter, name: str) -> Callable[[], LightSpan]:
    """Like `Tracing.begin` for a point without a span: it takes the ids of the current one."""

    def enter() -> LightSpan:
        begun = _clock()
        span = LightSpan()
        try:
            if not PROCESS_MARK[0]:  # before ids are drawn from the parent's generator
                emitter.abandon()
            traced, span.id, span.flags = ids_of(get_context().get(SPAN_KEY))
            span.trace = traced or b""
        except Exception as error:  # noqa: BLE001  # the guard
            emitter.lost("context not read", name, error, ran="sidelight")
        span.time = _wall()
        span.call = now = _clock()
        span.cost = now - begun
        return span

    return enter


TRACING: Final = Tracing()
