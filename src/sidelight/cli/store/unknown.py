"""Tell what a command names that the store does not know, because it may be misspelled."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import typer

from sidelight.cli.options import EventFilters
from sidelight.cli.output import complain, remark
from sidelight.cli.spool.commands import located
from sidelight.cli.spool.waiting import remark_waiting
from sidelight.exceptions import StoreError
from sidelight.record import alike, visible
from sidelight.store import Eraser, NameFilter, Store, Subject, no_such_name

_REPORTS: Final = 10_000  # each is that of one process on one point


def remark_unknown(
    store: Store, types: Iterable[str] | None = None, filters: EventFilters | None = None
) -> None:
    """Tell on stderr which names the store does not know; an answer without them is an answer.

    Args:
        store: the store.
        types: the event types that the command names; None where it names none.
        filters: its other filters.
    """
    chosen = filters or {}
    owner = chosen.get("organization_id")
    given: dict[NameFilter, Iterable[str]] = {
        "type": types or (),
        "organization_id": [str(owner)] if owner else (),
        "service": chosen.get("service") or (),
        "host": chosen.get("host") or (),
    }
    for argument, names in given.items():
        for name, close in store.unknown_names(argument, names).items():
            if argument == "type" and "," in name:
                remark(
                    f"no event in the store has the type {visible(name)}; repeat --type for several"
                )
            else:
                remark(located(no_such_name(argument, name, close), None, store.url))
    if points := chosen.get("point"):
        _remark_unknown_points(store, points)


def _remark_unknown_points(store: Store, points: Iterable[str]) -> None:
    """Tell which points no process has reported its costs of; the latest reports are read."""
    known = {each.point for each in store.costs(latest=_REPORTS)}
    for name in sorted({*points} - known) if known else ():
        close = alike(name, known)
        meant = f"did you mean {close}?" if close else "`sidelight budget` lists them"
        remark(f"the store knows no point {visible(name)}; {located(meant, None, store.url)}")


def require_artifact(store: Store, url: str | None, artifact: str | None) -> None:
    """End a command that names an artifact of which the store holds no event.

    Args:
        store: the store.
        url: of the store, as the command line gives it.
        artifact: its id; None where the command names none.

    Raises:
        typer.Exit: with exit code 1. stderr tells that the artifact was erased, or names artifacts
            with a similar id.
    """
    if artifact is None or next(store.events(artifact_id=artifact, limit=1), None) is not None:
        return
    if _was_erased(url, artifact):
        complain(f"{store.url} holds no events of the artifact {visible(artifact)}: it was erased")
        raise typer.Exit(1)
    remark_waiting(url)
    known = [each.artifact_id for each in store.artifacts(limit=1000)]
    close = alike(artifact, known)
    hint = f"did you mean {close}?" if close else "`sidelight artifacts` lists them"
    told = f"{store.url} holds no events of the artifact {visible(artifact)}"
    complain(f"{told}; {located(hint, None, store.url)}")
    raise typer.Exit(1)


def _was_erased(url: str | None, artifact: str) -> bool:
    try:
        with Eraser(url, dry=True) as eraser:
            return eraser.is_erased(Subject(artifact, None))
    except StoreError:  # tables of an earlier version, which have no tombstones
        return False
