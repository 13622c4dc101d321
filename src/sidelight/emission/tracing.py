"""Where an emission is: the bound defaults, the current span, and how a call's own span begins.

While a decorated function runs, a `LightSpan` stands in the OpenTelemetry context. Where the
application has a TracerProvider of its own, or another kind of context, the span is made by that
provider instead.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, Final, NamedTuple, Self

from opentelemetry import trace
from opentelemetry.trace import Span, TraceFlags

from sidelight.emission.emitter import Emitter
from sidelight.emission.light_span import LightSpan
from sidelight.emission.sampling import Sampling, sampling
from sidelight.host import PLAIN_CONTEXT, SPAN_KEY, from_outside, get_context, providers, with_span
from sidelight.record import RANDOM, REMOTE_PARENT, SAMPLED, SPAN, limits_from, plain, random_bits
from sidelight.version import __version__

SCOPE: Final = "sidelight"
#: Our trace ids are random; an API that knows no such flag is told nothing.
_OURS: Final = RANDOM if hasattr(TraceFlags, "RANDOM_TRACE_ID") else 0
KEPT: Final = SPAN | SAMPLED | _OURS
_HANDED_ON: Final = SPAN | SAMPLED | RANDOM  # from a light span to its children
_clock: Final = time.perf_counter_ns
_wall: Final = time.time_ns


class Bound(NamedTuple):
    """The defaults that `bind` gives to what is emitted inside it, and which `bind` gave them."""

    artifact_id: Any = None
    organization_id: Any = None
    by: bind | None = None
    outer: Bound | None = None


bound: Final[ContextVar[Bound]] = ContextVar("sidelight_bound", default=Bound())  # noqa: B039  # immutable


class bind:  # noqa: N801  # used like a function, as contextlib's are
    """Give an artifact and an organization to every event emitted inside a ``with``.

    What an event names itself comes first; an inner `bind` fills in over an outer one.
    """

    def __init__(self, *, artifact_id: Any = None, organization_id: Any = None) -> None:
        self._given = plain(artifact_id), plain(organization_id)

    def __enter__(self) -> Self:
        artifact_id, organization_id = self._given
        outer = bound.get()
        bound.set(
            Bound(
                outer.artifact_id if artifact_id is None else artifact_id,
                outer.organization_id if organization_id is None else organization_id,
                self,
                outer,
            )
        )
        return self

    def __exit__(self, *_: object) -> None:
        # No token: one `bind` may be entered by many tasks, and a generator left in another one.
        inner: Bound | None = bound.get()
        while inner is not None and inner.by is not self:
            inner = inner.outer
        if inner is not None and inner.outer is not None:
            bound.set(inner.outer)


class Ambient(NamedTuple):
    """What an emission finds around it: the bound defaults and the current span's ids."""

    artifact_id: Any
    organization_id: Any
    trace: bytes | None
    span_id: int
    flags: int


def ambient() -> Ambient:
    """Look at the context of the caller."""
    trace_id, span_id, flags = ids_of(get_context().get(SPAN_KEY))
    return Ambient(*bound.get()[:2], trace_id, span_id, flags)


def ids_of(span: Any) -> tuple[bytes | None, int, int]:
    """Trace, span id and flags of a span of any make; (None, 0, 0) where there is none."""
    if span is None:
        return None, 0, 0
    if type(span) is LightSpan:
        return span.trace, span.id, span.flags & (SAMPLED | RANDOM)
    try:
        context = span.get_span_context()
        if not context.is_valid:
            return None, 0, 0
        return context.trace_id.to_bytes(16, "big"), context.span_id, flags_of(context.trace_flags)
    except Exception as error:  # a stranger's span
        if from_outside(error):
            raise
        return None, 0, 0


def flags_of(flags: int) -> int:
    """The flags of a traceparent as a record has them."""
    return (SAMPLED if flags & 1 else 0) | (RANDOM if flags & 2 else 0)


class Tracing:
    """How spans are begun in this process.

    By the environment, at the first call or when `runtime` says so. ``others`` is set where a call
    must look further before it makes a light span.
    """

    def __init__(self) -> None:
        self.others = True
        self.disabled = False
        self.settled = False
        self.keep_root: Callable[[bytes], bool] = lambda _: True
        self.parent_based = True
        self._named = False
        self._looked = False
        self._tracer: trace.Tracer | None = None
        self._tracer_of: object = None

    def configure(self, environment: Mapping[str, str]) -> None:
        """Keep the spans that the ``OTEL_*`` variables want, and as much of each."""
        LightSpan.limits = limits_from(environment)
        self._named = bool(os.environ.get("OTEL_PYTHON_TRACER_PROVIDER")) and not self._looked
        self.sample(sampling(environment))

    def sample(self, rules: Sampling) -> None:
        """Keep the spans that ``rules`` keep."""
        self.keep_root = rules.root
        self.parent_based = rules.parent_based
        self.disabled = rules.disabled
        self.others = self.disabled or self._named or not PLAIN_CONTEXT
        self.settled = True

    def begin(self, emitter: Emitter, name: str) -> Callable[[], LightSpan]:
        """The function that the wrapper of one point calls first.

        The wrapper then makes ``span.context`` current, and ``span.outer`` again at the end: it
        does so itself, so that no interrupt can come between the change and what undoes it.
        """

        def enter() -> LightSpan:
            begun = _clock()
            span = LightSpan()
            try:
                span.context = span.outer = context = get_context()
                if (
                    providers._TRACER_PROVIDER is None  # noqa: SLF001
                    and not self.others
                ) or not self._elsewhere(span, emitter, name):
                    parent = context.get(SPAN_KEY)
                    span.id = random_bits(64)
                    if parent is None:
                        span.trace = trace_id = random_bits(128).to_bytes(16, "big")
                        span.flags = KEPT if self.keep_root(trace_id) else _OURS
                    elif type(parent) is LightSpan and self.parent_based:
                        span.trace = parent.trace
                        span.parent_id = parent.id
                        span.flags = parent.flags & _HANDED_ON
                        span.trace_state = parent.trace_state
                    else:
                        self._child(span, parent)
                    if not emitter.spans and span.flags & SPAN:
                        span.flags &= ~SPAN
                        emitter.count("spool nearly full: span left out", name)
                    span.context = with_span(context, span)
            except Exception as error:  # noqa: BLE001  # the guard
                strange = self.others or providers._TRACER_PROVIDER is not None  # noqa: SLF001
                emitter.lost("span not begun", name, error, looking=strange)
            span.time = _wall()
            span.call = now = _clock()
            span.cost = now - begun
            return span

        return enter

    def _child(self, span: LightSpan, parent: Span) -> None:
        """A span under one of another make, or by rules that ask no parent."""
        context = parent.get_span_context()
        if not context.is_valid:
            span.trace = random_bits(128).to_bytes(16, "big")
            span.flags = KEPT if self.keep_root(span.trace) else _OURS
            return
        span.trace = context.trace_id.to_bytes(16, "big")
        span.parent_id = context.span_id
        span.trace_state = context.trace_state
        flags = flags_of(context.trace_flags)
        kept = bool(flags & SAMPLED) if self.parent_based else self.keep_root(span.trace)
        span.flags = (
            (SPAN | SAMPLED if kept else 0)
            | (flags & RANDOM)
            | (REMOTE_PARENT if context.is_remote else 0)
        )

    def _elsewhere(self, span: LightSpan, emitter: Emitter, name: str) -> bool:
        """Begin a span that is not ours to make; False where it is after all."""
        if not self.settled:
            self.configure(os.environ)
        if (
            self._named
        ):  # OpenTelemetry loads it at the first look; one that fails is not tried again
            self._named, self._looked = False, True
            self.others = self.disabled or not PLAIN_CONTEXT
            try:
                trace.get_tracer_provider()
            except Exception as error:  # noqa: BLE001  # a stranger's provider
                emitter.lost("tracer provider not loaded", name, error)
        provider = providers._TRACER_PROVIDER  # noqa: SLF001
        if provider is None and not self.others:
            return False
        if provider is None:  # disabled, or in a context that takes no span of ours
            traced, span.id, span.flags = ids_of(get_context().get(SPAN_KEY))
            span.trace = traced or b""
            return True
        if self._tracer is None or self._tracer_of is not provider:
            self._tracer, self._tracer_of = trace.get_tracer(SCOPE, __version__), provider
        span.name, span.lost = name, emitter.lost
        span.other = made = self._tracer.start_span(name)
        traced, span.id, span.flags = ids_of(made)
        span.trace = traced or b""
        span.context = trace.set_span_in_context(made)
        return True


def outside(emitter: Emitter, name: str) -> Callable[[], LightSpan]:
    """Like `Tracing.begin`, for a point without a span: it takes the ids of the one around it."""

    def enter() -> LightSpan:
        begun = _clock()
        span = LightSpan()
        try:
            traced, span.id, span.flags = ids_of(get_context().get(SPAN_KEY))
            span.trace = traced or b""
        except Exception as error:  # noqa: BLE001  # the guard
            emitter.lost("context not read", name, error, looking=False)
        span.time = _wall()
        span.call = now = _clock()
        span.cost = now - begun
        return span

    return enter


TRACING: Final = Tracing()
