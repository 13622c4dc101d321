"""Check the other default spools of this user: records may wait there that no relay delivers.

The name of a default spool depends on the store's URL. A process with another store, with another
URL of the same database, with another link to the same file, or of an older version may have left
its records in another directory.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sidelight.cli.doctor.findings import Finding
from sidelight.cli.spool.commands import relay_command
from sidelight.cli.spool.segments import Backlog, SegmentReport, read_spool
from sidelight.host import is_directory, state_directory
from sidelight.record import BESIDE, DEFAULT_SPOOL, is_same_store, spool_beside
from sidelight.settings import Settings, sqlite_path

_ASK: Final = "ask the owner for access"
_SEVERAL: Final = 3  # spools, of which one note tells


def check_siblings(settings: Settings, *, folded: bool) -> Iterator[Finding]:
    """Find default spools with records of ended processes, apart from the spool of the settings.

    Args:
        settings: name the store and its spool.
        folded: make one note of those about several spools of other stores.
    """
    notes: list[Finding] = []
    spools = 0
    for sibling in sorted(set(_siblings(settings)) - {settings.spool}):
        found = [*_check_sibling(sibling, settings.store)]
        of_others = [each for each in found if each.state == "note" and each.remedy != _ASK]
        yield from (each for each in found if each not in of_others)
        notes += of_others
        spools += bool(of_others)
    if not folded or spools < _SEVERAL:
        yield from notes
        return
    yield Finding(
        "spool",
        "note",
        f"{spools} other spools of this user hold records of processes that have ended: no relay of"
        " those spools reads them",
        "`sidelight doctor --json` names each, with the command that delivers its records",
    ).located(settings)


def _siblings(settings: Settings) -> Iterator[Path]:
    with contextlib.suppress(OSError):  # this user may not look there
        for pattern in (f"{DEFAULT_SPOOL}*", f"*{BESIDE}"):
            yield from state_directory().glob(pattern)
    file = sqlite_path(settings.store or "")
    if file is not None and settings.spool == spool_beside(file):
        place = os.path.realpath(file)
        for folder in {file.parent, Path(place).parent}:
            for beside in folder.glob(f"*{BESIDE}"):
                if os.path.realpath(os.fspath(beside).removesuffix(BESIDE)) == place:
                    yield beside


def _check_sibling(sibling: Path, store: str | None) -> Iterator[Finding]:
    try:
        found = read_spool(sibling) if is_directory(sibling) else []
    except OSError as error:
        yield Finding("spool", "note", f"cannot read {error.filename}", _ASK)
        return
    segments = [each for each in found if not each.alive and not each.attended]
    for store_of, stream in sorted({_destinations(each) for each in segments}):
        backlog, is_wanted = Backlog(), False
        for each in segments:
            if _destinations(each) == (store_of, stream):
                backlog.add(max(each.backlog.values(), key=lambda some: some.records))
                is_wanted |= any(some.is_wanted(sink) for sink, some in each.backlog.items())
        if backlog.records:
            is_ours = store is not None and bool(store_of) and is_same_store(store_of, store)
            yield Finding(
                "spool",
                "wrong" if is_ours and is_wanted else "note",
                f"{backlog}, for {store_of or stream or 'an unnamed store'}, of processes that have"
                f" ended, are in {sibling}: no relay of {'this store' if is_ours else 'that spool'}"
                " reads them",
                f"`{relay_command(sibling, store_of, stream)}` delivers them",
            )


def _destinations(segment: SegmentReport) -> tuple[str, str]:
    """Return the store and the stream of a segment's writer; "" where there is none."""
    return str(segment.meta.get("store") or ""), str(segment.meta.get("stream") or "")
