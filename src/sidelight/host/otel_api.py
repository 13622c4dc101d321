"""The private names of the OpenTelemetry API; no other module uses them.

They are checked at import. Where a name has moved, or the application chose another kind of
context, the public functions take their place: they are slower, and never wrong.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final

from opentelemetry import context as _context
from opentelemetry import trace as _trace
from opentelemetry.context.context import Context
from opentelemetry.trace import propagation as _propagation

from sidelight.host.imports import when_imported

_runtime: Final = getattr(_context, "_RUNTIME_CONTEXT", None)
_variable: Final = getattr(_runtime, "_current_context", None)


class _NoProvider:
    """Replaces `trace` where OpenTelemetry keeps its provider elsewhere; spans are then light."""

    _TRACER_PROVIDER = None


SPAN_KEY: Final[str] = getattr(_propagation, "_SPAN_KEY", "")
"""The key under which a context holds its current span."""

PLAIN_CONTEXT: Final = bool(
    SPAN_KEY
    and isinstance(_variable, ContextVar)
    and type(_runtime).__module__.startswith("opentelemetry.")
)
"""Whether the current context is a context variable that holds a mapping, so that it can hold a
light span. With another context runtime (ddtrace installs one) the provider makes the spans."""

if PLAIN_CONTEXT:
    assert isinstance(_variable, ContextVar)  # noqa: S101  # for the type checker
    get_context: Callable[[], Any] = _variable.get
    set_context: Callable[[Any], Any] = _variable.set
    reset_context: Callable[[Any], None] = _variable.reset
else:
    get_context = _context.get_current
    set_context = _context.attach
    reset_context = _context.detach


def _attach_to_ddtrace(context: Any) -> Any:
    """Attach a context; ddtrace's runtime ignores one without a span, so deactivate the current."""
    token = _context.attach(context)
    if SPAN_KEY and context.get(SPAN_KEY) is None:
        sys.modules["ddtrace.trace"].tracer.context_provider.activate(None)
    return token


if type(_runtime).__module__.startswith("ddtrace."):
    set_context = _attach_to_ddtrace


def with_span(context: Any, span: object) -> Any:
    """Copy a context and make ``span`` its current one."""
    return Context({**context, SPAN_KEY: span} if context else {SPAN_KEY: span})


#: Its ``_TRACER_PROVIDER`` is the application's TracerProvider; None where it has set none.
#: (`get_tracer_provider` would make one, and costs more than a whole light span.)
providers: Final[Any] = _trace if hasattr(_trace, "_TRACER_PROVIDER") else _NoProvider()


_NO_METERS: Final = frozenset({"_ProxyMeterProvider", "NoOpMeterProvider"})


def keeps_metrics(provider: object) -> bool:
    """Return whether a MeterProvider is one that was set, and does not only stand in for it."""
    return type(provider).__name__ not in _NO_METERS


# Fork hooks run in the order of their registration. A TracerProvider has one that uses a thread
# pool. The hook of the thread pools must run before it, or the child hangs. Every provider of the
# SDK has a resource.
when_imported(
    "opentelemetry.sdk.resources", lambda: importlib.import_module("concurrent.futures.thread")
)


def suppressed() -> Any:
    """Make a context in which instrumentation ignores sidelight's own exports."""
    context = _context.get_current()
    for name in ("_SUPPRESS_INSTRUMENTATION_KEY", "_SUPPRESS_HTTP_INSTRUMENTATION_KEY"):
        key = getattr(_context, name, None)
        if key is not None:
            context = _context.set_value(key, value=True, context=context)
    return context
