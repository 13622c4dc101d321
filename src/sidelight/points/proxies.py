"""What is no Python function, carried by wrapt: partials, instances, C functions, descriptors.

wrapt's proxy behaves as what it carries; here it also pickles and copies as that does.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import wrapt

if TYPE_CHECKING:
    from collections.abc import Callable


class Carried(wrapt.FunctionWrapper[..., Any] if TYPE_CHECKING else wrapt.FunctionWrapper):  # type: ignore[misc]
    """A proxy whose calls go through a generated wrapper."""

    def __init__(self, function: Any, made: Callable[..., Any]) -> None:
        super().__init__(function, made)
        self._self_made = made
        self._self_sidelight: Any = None

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """Bind as what is carried does; what has no ``__get__`` stays as it is."""
        if not hasattr(type(self.__wrapped__), "__get__"):
            return self
        return super().__get__(instance, owner)

    def __copy__(self) -> Any:
        """Copy what is carried, and carry the copy."""
        return self._carry(copy.copy(self.__wrapped__))

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """Copy what is carried, and carry the copy."""
        return self._carry(copy.deepcopy(self.__wrapped__, memo))

    def _carry(self, function: Any) -> Any:
        return (
            self
            if function is self.__wrapped__
            else again(function, self._self_sidelight.point.path)
        )

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle by name where what is carried does; else with it, to be decorated again."""
        reduced = self.__wrapped__.__reduce_ex__(protocol)
        if isinstance(reduced, str):
            return reduced
        return again, (self.__wrapped__, self._self_sidelight.point.path)


def again(function: Any, path: str) -> Any:
    """Decorate a copy as the point ``path`` is; not at all where this process has no such point."""
    from sidelight.points.decorator import weave  # noqa: PLC0415  # it imports this module
    from sidelight.points.registry import POINTS  # noqa: PLC0415

    point = POINTS.get(path)
    return function if point is None else weave(function, point.declarations)
