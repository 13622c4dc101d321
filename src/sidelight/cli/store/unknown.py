"""Tell on stderr which types a command names that no event has: they may be misspelled."""

from __future__ import annotations

from collections.abc import Iterable

from sidelight.cli.output import remark
from sidelight.store import Store, no_such_type


def remark_unknown_types(store: Store, types: Iterable[str] | None) -> None:
    """Tell which of the types no event has, with the type that each looks like."""
    for name, close in store.unknown_types(types or ()).items():
        remark(no_such_type(name, close))
