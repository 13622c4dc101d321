"""`bind`: defaults for every event emitted inside it; and how threads and pools inherit them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from contextvars import Context, ContextVar, copy_context
from typing import Any, Final, Generic, NamedTuple, NoReturn, ParamSpec, Self, TypeVar

from opentelemetry.trace import NonRecordingSpan, SpanContext

from sidelight.emission.tracing import ids_of
from sidelight.exceptions import PointError, leave_own_frames_out, told_at_the_caller
from sidelight.host import SPAN_KEY, get_context, set_context, with_span
from sidelight.record import STORE_COLUMNS, plain, shared_by, w3c_flags

_P = ParamSpec("_P")
_R = TypeVar("_R")


class Bound(NamedTuple):
    """The defaults that `bind` gives to emissions inside it, and the `bind` that gave them."""

    artifact_id: Any = None
    organization_id: Any = None
    attributes: Mapping[str, Any] = {}
    by: bind | None = None
    outer: Bound | None = None


bound: Final[ContextVar[Bound]] = ContextVar("sidelight_bound", default=Bound())  # noqa: B039  # immutable


class Binding:
    """Whether any `bind` of this process has set attributes, so that emissions look for them."""

    __slots__ = ("has_attributes",)

    def __init__(self) -> None:
        self.has_attributes = False


BINDING: Final = Binding()


def with_bound(attributes: dict[str, Any] | None) -> dict[str, Any] | None:
    """Add the bound attributes to those of an event, which come first."""
    return {**bound.get().attributes, **(attributes or {})} or None


class Ambient(NamedTuple):
    """The surroundings of an emission: the bound defaults and the ids of the current span."""

    artifact_id: Any
    organization_id: Any
    trace: bytes | None
    span_id: int
    flags: int


def ambient() -> Ambient:
    """Read the caller's context."""
    trace_id, span_id, flags = ids_of(get_context().get(SPAN_KEY))
    return Ambient(*bound.get()[:2], trace_id, span_id, flags)


def _refuse(name: object) -> NoReturn:
    raise PointError(
        function="bind",
        problem=f"{name}= is set by sidelight",
        remedy="call the attribute something else",
    )


class bind:  # noqa: N801  # used like a function, as contextlib's are
    """Set defaults for every event emitted inside a ``with``: the artifact, and any attributes.

    An event's own fields take precedence, then the innermost `bind` that names a value. Tasks that
    are started inside inherit the defaults; for threads and pools see `with_context`.

    Args:
        artifact_id: the artifact of events that name none.
        organization_id: the organization of events that name none.
        attributes: attributes of each event, by name.
        named: further attributes.

    Raises:
        PointError: an attribute has a name that sidelight sets itself.
    """

    def __init__(
        self,
        *,
        artifact_id: Any = None,
        organization_id: Any = None,
        attributes: Mapping[str, Any] | None = None,
        **named: Any,
    ) -> None:
        given = {**(attributes or {}), **named}
        try:
            for name in given:
                if name in STORE_COLUMNS or not isinstance(name, str):
                    _refuse(name)
        except PointError as error:
            leave_own_frames_out(error)
            raise
        self._ids = plain(artifact_id), plain(organization_id)
        shared = shared_by(len(given))
        self._attributes = {name: plain(value, shared=shared) for name, value in given.items()}
        BINDING.has_attributes = BINDING.has_attributes or bool(given)

    def __enter__(self) -> Self:
        artifact_id, organization_id = self._ids
        outer = bound.get()
        bound.set(
            Bound(
                outer.artifact_id if artifact_id is None else artifact_id,
                outer.organization_id if organization_id is None else organization_id,
                {**outer.attributes, **self._attributes} if self._attributes else outer.attributes,
                self,
                outer,
            )
        )
        return self

    def __exit__(self, *_: object) -> None:
        # No token, because a `bind` may be entered in many tasks and left in another one.
        inner: Bound | None = bound.get()
        while inner is not None and inner.by is not self:
            inner = inner.outer
        if inner is not None and inner.outer is not None:
            bound.set(inner.outer)


class InContext(Generic[_P, _R]):
    """A function that runs in a copy of the context in which `with_context` was called."""

    def __init__(self, function: Callable[_P, _R], context: Context) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self._context = context

    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        """Call the function in a copy of the context."""
        return self._context.copy().run(self._function, *args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        """Take what is bound and the ids of the span along; other variables stay here."""
        defaults = tuple(self._context.run(bound.get))[:3]
        span = self._context.run(lambda: ids_of(get_context().get(SPAN_KEY)))
        return _arrived, (self._function, defaults, span)


@told_at_the_caller
def with_context(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let a function run with the present context, in whatever thread or process runs it.

    Threads of a pool have a context of their own, so they know nothing of `bind` and of the current
    span. ``pool.submit(with_context(work), item)`` and ``pool.map(with_context(work), items)`` hand
    both on. Each call runs in its own copy of the context. In another process the function has what
    is bound and the current span as a remote parent.

    Args:
        function: a plain function.

    Raises:
        PointError: the function is a coroutine or generator function, which runs later, in the
            context of its caller. A task copies the context itself.
    """
    kinds = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    if any(each(function) for each in kinds):
        raise PointError(
            function=getattr(function, "__qualname__", repr(function)),
            problem="its body does not run in the call",
            remedy="start a task, which copies the context, or hand over a plain function",
        )
    return InContext(function, copy_context())


def _arrived(function: Callable[..., Any], defaults: tuple[Any, ...], span: Any) -> Any:
    """Make the context of another process anew."""
    context = Context()
    context.run(_enter, Bound(*defaults), *span)
    return InContext(function, context)


def _enter(given: Bound, trace: bytes | None, span_id: int, flags: int) -> None:
    bound.set(given)
    BINDING.has_attributes = BINDING.has_attributes or bool(given.attributes)
    if trace is not None:
        ids = int.from_bytes(trace, "big"), span_id
        parent = SpanContext(*ids, is_remote=True, trace_flags=w3c_flags(flags))
        set_context(with_span(get_context(), NonRecordingSpan(parent)))
