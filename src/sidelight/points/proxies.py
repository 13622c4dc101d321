"""The proxy for a callable that is no Python function: a partial, an instance, a descriptor.

wrapt's proxy behaves as what it wraps. This one also copies and pickles as that does.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import wrapt

from sidelight.points.declaration import Declaration
from sidelight.points.registry import Point

Rewrap: TypeAlias = "Callable[[Any, str, tuple[Declaration, ...] | None], Any]"
"""Wraps a copy as its original was; see `decorator.rewrap`. pickle finds it by its name."""


class Proxy(wrapt.FunctionWrapper[..., Any] if TYPE_CHECKING else wrapt.FunctionWrapper):  # type: ignore[misc]
    """A proxy whose calls go through a generated wrapper."""

    def __init__(
        self,
        function: Any,
        generated: Callable[..., Any],
        point: Point,
        rewrap: Rewrap,
    ) -> None:
        super().__init__(function, generated)
        self._self_point = point
        self._self_rewrap = rewrap
        self._self_sidelight: Any = None

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """Bind as the wrapped object does; an object without ``__get__`` stays unbound."""
        if not hasattr(type(self.__wrapped__), "__get__"):
            return self
        return super().__get__(instance, owner)

    def __copy__(self) -> Any:
        """Copy the wrapped object, and wrap the copy."""
        return self._wrap_copy(copy.copy(self.__wrapped__))

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """Copy the wrapped object, and wrap the copy."""
        return self._wrap_copy(copy.deepcopy(self.__wrapped__, memo))

    def _wrap_copy(self, function: Any) -> Any:
        if function is self.__wrapped__:
            return self
        point = self._self_point
        return self._self_rewrap(function, point.path, point.declarations)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle by name where the wrapped object does; else with it, to be wrapped again."""
        reduced = self.__wrapped__.__reduce_ex__(protocol)
        if isinstance(reduced, str):
            return reduced
        declarations: tuple[Declaration, ...] | None = self._self_point.declarations
        try:
            pickle.dumps(declarations)
        except Exception:  # noqa: BLE001  # a lambda in a field, for example
            declarations = None
        return self._self_rewrap, (self.__wrapped__, self._self_point.path, declarations)
