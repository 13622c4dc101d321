"""Known names that a misspelt one looks like, for hints."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from difflib import SequenceMatcher, get_close_matches
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sidelight.record.expectations import Expectation

_MOST: Final = 3
_ALIKE: Final = 0.9  # of 1: names that differ in a few letters
_SAME_LOOKS: Final = str.maketrans("oil", "011")


def alike(name: str, known: Iterable[str], *, least: float = 0.6) -> str:
    """Return the known names that are nearest to a name: ``a``, ``a or b``, ``a, b or c``.

    A name that differs only in letters that look the same, as 0 and O, is the nearest. Of names
    that are equally near, at most three are returned. "" stands for none.

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
    *others, last = sorted(nearest)[:_MOST] or [""]
    return f"{', '.join(others)} or {last}" if others else last


def unknown_types(
    expectations: Iterable[Expectation], known: Collection[str], *, least_of_first: float = _ALIKE
) -> Iterator[tuple[Expectation, str, str]]:
    """Yield expected types that are not known, each once, with the known ones that look like it.

    Args:
        expectations: of a map or a catalogue.
        known: the types that something emits.
        least_of_first: how near a known type must be to one that begins a wait, from 0 to 1.
    """
    told = set[tuple[str, bool]]()
    for each in expectations:
        others = {*known} - {each.after, *each.one_of}
        for name in (each.after, *each.one_of):
            is_first = name == each.after
            if name not in known and (name, is_first) not in told:
                told.add((name, is_first))
                yield each, name, alike(name, others, least=least_of_first if is_first else _ALIKE)


def _looks(name: str) -> str:
    return name.lower().translate(_SAME_LOOKS)


def _ratio(one: str, other: str) -> float:
    return SequenceMatcher(None, one, other).ratio()
