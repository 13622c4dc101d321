"""Processes that have ended, as the locks of their segments tell, while the store knows no end.

A process holds one of its segments as long as it lives. Only a relay notes the end of a process
that was killed: where none runs, the store waits in vain for the next sign of life.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sidelight.cli.spool.commands import relay_command
from sidelight.record import is_same_store
from sidelight.spool import Segment, segments_in
from sidelight.store import Process


def ended_in(
    directory: Path, store: str | None, running: Iterable[Process]
) -> list[tuple[Process, str]]:
    """Return processes without a noted end that have ended, each with the command that notes it.

    Args:
        directory: a spool of this machine.
        store: the URL of the store that was asked.
        running: the processes whose end that store does not know.

    Raises:
        OSError: the spool cannot be read.
    """
    known = {each.process: each for each in running}
    if not known or not known.keys() & _orphans(directory).keys():
        return []
    # Look again: a process may have left one segment for the next during the first look.
    found = []
    for instance, meta in _orphans(directory).items():
        named = meta.get("store")
        if instance in known and (named is None or is_same_store(named, store)):
            command = relay_command(directory, named, meta.get("stream"))
            found.append((known[instance], command))
    return found


def _orphans(directory: Path) -> dict[Any, Mapping[str, Any]]:
    """Return the headers, by process, of processes of which no segment has a writer or a reader."""
    held = set[Any]()
    free: dict[Any, Mapping[str, Any]] = {}
    for path in segments_in(directory):
        with (
            contextlib.suppress(FileNotFoundError),  # delivered and deleted meanwhile
            contextlib.closing(Segment.inspect(path)) as segment,
        ):
            instance = segment.meta.get("instance")
            if segment.has_writer or segment.has_reader:
                held.add(instance)
            free[instance] = segment.meta
    return {instance: meta for instance, meta in free.items() if instance not in held}
