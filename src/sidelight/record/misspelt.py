"""Known names that a misspelt one looks like, for hints."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from difflib import SequenceMatcher, get_close_matches
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from sidelight.record.expectations import Expectation

_MOST: Final = 3
_ALIKE: Final = 0.9  # of 1: names that differ in a few letters
_SAME_LOOKS: Final = str.maketrans("oil", "011")


def visible(name: str) -> str:
    """Return a name as a sentence has it: in quotes where blanks at its ends would not show."""
    return name if name and name == name.strip() else f"'{name}'"


def alike(name: str, known: Iterable[str], *, least: float = 0.6) -> str:
    """Return the known names that are nearest to a name: ``a``, ``a or b``, ``a, b or c``.

    A name that differs only in letters that look the same, as 0 and O, is the nearest. Of names
    that are equally near, at most three are returned, each as `visible` has it. "" stands for none.

    Args:
        name: may be misspelt.
        known: the names that it is compared with.
        least: how near a name must be at least, from 0 to 1.
    """
    known = sorted(set(known))
    close = get_close_matches(name, known, len(known), least) if known else []
    looks = _looks(name)
    same = [each for each in close if _looks(each) == looks]
    nearest = same or [each for each in close if _ratio(each, name) == _ratio(close[0], name)]
    *others, last = [visible(each) for each in sorted(nearest)[:_MOST]] or [""]
    return f"{', '.join(others)} or {last}" if others else last


class UnknownType(NamedTuple):
    """An expected event type that is not known.

    Attributes:
        expectation: it names the type.
        name: of the type.
        close: the known types that look like it; "" for none.
        decides: whether the expectation depends on it: the wait begins with this type, or no type
            is known that ends the wait.
    """

    expectation: Expectation
    name: str
    close: str
    decides: bool


def unknown_types(
    expectations: Iterable[Expectation], known: Collection[str], *, least_of_first: float = _ALIKE
) -> Collection[UnknownType]:
    """Return expected types that are not known, each once.

    Args:
        expectations: of a map or a catalogue.
        known: the types that something emits.
        least_of_first: how near a known type must be to one that begins a wait, from 0 to 1.
    """
    found: dict[tuple[str, bool], UnknownType] = {}
    for each in expectations:
        others = {*known} - {each.after, *each.one_of}
        endless = {*known}.isdisjoint(each.one_of)
        for name in (each.after, *each.one_of):
            is_first = name == each.after
            decides = is_first or endless
            before = found.get((name, is_first))
            if name not in known and (before is None or decides > before.decides):
                close = alike(name, others, least=least_of_first if is_first else _ALIKE)
                found[name, is_first] = UnknownType(each, name, close, decides)
    return found.values()


def _looks(name: str) -> str:
    return name.lower().translate(_SAME_LOOKS)


def _ratio(one: str, other: str) -> float:
    return SequenceMatcher(None, one, other).ratio()
