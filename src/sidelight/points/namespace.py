"""The objects that generated code refers to, by the names that the templates have for them."""

from __future__ import annotations

import atexit
import contextlib
import enum
import itertools
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from types import CodeType, FunctionType
from typing import Any, Final
from weakref import WeakValueDictionary

from sidelight.emission import (
    BINDING,
    EMITTER,
    TRACING,
    Deferred,
    Head,
    PointWaits,
    begin_without_span,
    bound,
    read_attribute,
    resolved,
    with_bound,
)
from sidelight.exceptions import InstrumentationError, TransactionError
from sidelight.host import (
    Ran,
    begin_use,
    get_context,
    imported,
    is_interrupt,
    perf_counter_ns,
    reset_context,
    set_context,
    signal_handlers,
    without_frame,
)
from sidelight.points.callables import Kind
from sidelight.points.codegen import keep_source, when_collected
from sidelight.points.registry import Point
from sidelight.points.signature import REFERENCES
from sidelight.record import MAX_TEXT, Allowance, error_details, plain, random_bits
from sidelight.transactions import JoiningLater

begin_use()

#: What a recorded expression may meet on its way without anything being wrong.
_MISSING: Final = (AttributeError, KeyError, IndexError, TypeError)


class CaptureGuard:
    """Tells a call of a point that the point's own capture makes, as ``repr`` of ``arg.self`` may.

    Such a call runs the bare function: it would capture again, and again. Calls on other threads
    are told apart by the stack.

    Attributes:
        active: whether some thread may be capturing. A call reads it, so it has to be cheap.
    """

    __slots__ = ("_codes", "active")

    def __init__(self) -> None:
        self.active = False
        self._codes: frozenset[CodeType] = frozenset()

    def watch(self, functions: Iterable[Any]) -> None:
        """Recognize a capture by these functions on the stack."""
        self._codes = frozenset(function.__code__ for function in functions)

    def reentered(self) -> bool:
        """Return whether this thread captures the point now, with no signal handler in between."""
        frame = sys._getframe().f_back  # noqa: SLF001  # as `inspect.currentframe`, without its cost
        handlers = signal_handlers()
        while frame is not None:
            if frame.f_code in self._codes:
                return True
            if frame.f_code in handlers:
                return False  # its call is no part of the capture that the signal interrupted
            frame = frame.f_back
        return False


class References:
    """The objects that one wrapper refers to, in the order in which the wrapper unpacks them.

    The wrapper's code names only this object. So the code finds its objects wherever it goes:
    pickled by value, this object is made again in the other process; put into an older function by
    a reload, the code finds it in globals that all wrappers of a module share.
    """

    __slots__ = ("_restore", "names", "objects")

    def __init__(
        self, names: tuple[str, ...], objects: tuple[Any, ...], restore: tuple[Any, ...]
    ) -> None:
        self.names = names
        self.objects = objects
        self._restore = restore

    def __reduce__(self) -> tuple[Any, ...]:
        return self._restore


class Globals:
    """The globals of wrappers whose code may move: by value into a pickle, or by a reload.

    Functions that a reload can define again share the globals of their module. Others, which are
    made at run time, have their own, so that nothing keeps them alive.
    """

    def __init__(self) -> None:
        self._shared: dict[str, dict[str, Any]] = {}
        self._fixed: WeakValueDictionary[str, FunctionType] = WeakValueDictionary()
        self._numbers = itertools.count(1)

    def may_move(self, point: Point) -> bool:
        """Return whether the code of a point's wrapper may be taken out of it.

        cloudpickle does that with the functions of a script or notebook, IPython's autoreload with
        every module. All other wrappers do without the detour, which costs 3 % of a call.
        """
        return point.module == "__main__" or "IPython" in sys.modules

    def of(self, point: Point, references: References) -> tuple[dict[str, Any], str]:
        """Return the globals of a point's wrapper, and the name of its references in them."""
        own: dict[str, Any] = {"__name__": point.module}
        if "<" in point.qualname:
            own[REFERENCES] = references
            return own, REFERENCES
        name = f"{REFERENCES}_{next(self._numbers)}"
        shared = self._shared.setdefault(point.module, own)
        shared[name] = references
        older = self._fixed.get(point.path)
        if older is not None:  # a reload may put the new code into it
            older.__globals__[name] = references
        return shared, name

    def keep(self, point: Point, wrapper: FunctionType) -> None:
        """Keep the references and the source of a wrapper as long as its code, wherever it is."""
        code, objects = wrapper.__code__, wrapper.__globals__
        keep_source(code)
        if not self.may_move(point):
            self.fix(point, wrapper)
        for name in code.co_names:
            if name.startswith(f"{REFERENCES}_"):
                when_collected(code, self._forget, objects["__name__"], name)

    def fix(self, point: Point, wrapper: FunctionType) -> None:
        """Note a wrapper whose code does not move; a later reload of its module may change it."""
        self._fixed[point.path] = wrapper

    def _forget(self, module: str, name: str) -> None:
        self._shared.get(module, {}).pop(name, None)

    def release(self) -> None:
        """Leave the globals to the wrappers, at the end of the process.

        They lead to the functions' own globals, whose objects the interpreter could not end else.
        """
        self._shared.clear()


GLOBALS: Final = Globals()
atexit.register(GLOBALS.release)


def namespace(point: Point, function: Any, kind: Kind) -> dict[str, Any]:
    """Return the objects that the generated code of one point refers to."""
    costs = EMITTER.costs_of(point.path)
    begin = TRACING.begin if point.span else begin_without_span
    return {
        **_SHARED,
        **_guard(point),
        **PointWaits(EMITTER, point.path, costs).names(),
        **JoiningLater(costs).names(),
        "__name__": point.module,
        "_function": function,
        "_original": function,
        "_capture": CaptureGuard(),
        "_enter": begin(EMITTER, point.qualname),
        "_fine": costs.fine,
        "_add_cost": costs.add,
        "_is_pending": kind.is_pending,
    }


def _guard(point: Point) -> dict[str, Any]:
    """Return the functions that count a problem, and keep it from the caller."""
    path = point.path
    joins = any(d.joins for d in point.declarations)
    ran: Ran = "library" if joins else "sidelight"  # a database's driver

    def lost(reason: str, problem: BaseException) -> None:
        EMITTER.lost(reason, path, problem, ran=ran)

    def uncaptured(field: str, problem: BaseException) -> None:
        EMITTER.lost(f"field {field} not captured", path, problem)

    return {"_lost": lost, "_uncaptured": uncaptured}


def chooser(
    heads: Mapping[Any, Head],
    otherwise: Head | None,
    uncaptured: Callable[[str, BaseException], None],
) -> Callable[[Any], Head | None]:
    """Return the function that finds the event type of a value."""

    def choose(value: Any) -> Head | None:
        if (type(value) is str or type(value) is bytes) and len(value) > MAX_TEXT:
            return otherwise  # because its hash would take long
        try:
            found = heads.get(value)
            if found is None and isinstance(value, enum.Enum):
                found = heads.get(value.value)
        except TypeError:  # a value without a hash is none of the cases
            return otherwise
        except BaseException as problem:  # noqa: BLE001  # from the value's __hash__ or __eq__
            uncaptured("choose", problem)
            return otherwise
        return otherwise if found is None else found

    return choose


def _detach_token(token: Any) -> None:
    """Undo what a coroutine's body has left attached, if this is the context that it ran in."""
    with contextlib.suppress(ValueError, RuntimeError, TypeError):
        reset_context(token)


def _first_resume(generator: AsyncGenerator[Any, Any]) -> Callable[[Any], Awaitable[Any]]:
    """Return the first resume of an async generator that only its wrapper closes.

    An event loop registers every async generator at its first resume, and closes all of them when
    it ends, in any order. The generator under a wrapper must not be closed apart from the wrapper.
    """

    def resume(value: Any) -> Awaitable[Any]:
        hooks = sys.get_asyncgen_hooks()
        try:
            sys.set_asyncgen_hooks(None, None)
            return generator.asend(value)
        finally:
            sys.set_asyncgen_hooks(*hooks)

    return resume


def _is_future(result: Any) -> bool:
    asyncio = imported("asyncio")  # without that import there are no futures
    try:
        return asyncio is not None and asyncio.isfuture(result)
    except BaseException as problem:  # from the result's `__class__`
        if is_interrupt(problem):
            raise
        return False


def _when_done(
    future: Any,
    succeeded: Callable[[Any], object],
    failed: Callable[[BaseException], object],
) -> Any:
    """End the call when the future ends that the function returned."""

    def done(future: Any) -> None:
        if future.cancelled():
            failed(sys.modules["asyncio"].CancelledError())
        elif (error := getattr(future, "_exception", None)) is not None:
            failed(error)  # `exception()` would mark it as retrieved by the application
        else:
            succeeded(future.result())

    future.add_done_callback(done)
    return future


_SHARED: Final[Mapping[str, Any]] = {
    "_MISSING": _MISSING,
    "_Deferred": Deferred,
    "_InstrumentationError": InstrumentationError,
    "_TransactionError": TransactionError,
    "_binding": BINDING,
    "_bool": bool,
    "_bits": random_bits,
    "_bound": bound.get,
    "_clock": perf_counter_ns,
    "_detach_token": _detach_token,
    "_emit": EMITTER.write,
    "_error_details": error_details,
    "_first_resume": _first_resume,
    "_get_context": get_context,
    "_getattr": getattr,
    "_int": int,
    "_is_future": _is_future,
    "_resolved": resolved,
    "_losses": EMITTER.losses,
    "_place": lambda: EMITTER.spool.position(),  # noqa: PLW0108  # the spool can change
    "_plain": plain,
    "_Allowance": Allowance,
    "_read": read_attribute,
    "_set_context": set_context,
    "_when_done": _when_done,
    "_with_bound": with_bound,
    "_without_frame": without_frame,
}
