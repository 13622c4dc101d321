"""Say that events still wait in the spool, because an answer of the store does not contain them."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

import msgspec

from sidelight.cli.output import remark
from sidelight.exceptions import SidelightError
from sidelight.record import decode
from sidelight.settings import settle
from sidelight.spool import PAGE, Scanner, Segment, is_same_store, segments_in
from sidelight.store import plural

_MOST: Final = 10_000  # events to count


def remark_waiting(store: str | None) -> None:
    """Tell on stderr how many events wait for a store in the spool of this machine."""
    with contextlib.suppress(SidelightError):  # the store's own error says more
        settings = settle(store)
        try:
            number = _waiting_in(settings.spool, settings.require_store())
        except OSError as error:
            remark(f"events may wait in {settings.spool}, which cannot be read: {error.strerror}")
            return
        if number:
            more = "more than " if number >= _MOST else ""
            remark(f"{more}{plural(number, 'event')} still in the spool; see `sidelight spool`")


def _waiting_in(directory: Path, store: str) -> int:
    """Count the events that a store has not taken, up to `_MOST`.

    Raises:
        OSError: the spool cannot be read.
    """
    number = 0
    for path in segments_in(directory):
        with (
            contextlib.suppress(FileNotFoundError),  # delivered and deleted meanwhile
            contextlib.closing(Segment.inspect(path)) as segment,
        ):
            if not is_same_store(segment.meta.get("store"), store):
                continue
            scanner = Scanner(segment, segment.cursors.get("store", PAGE))
            while number < _MOST and (payloads := scanner.batch(_MOST).payloads):
                number += sum(map(_is_event, payloads))
    return min(number, _MOST)


def _is_event(payload: bytes) -> bool:
    try:
        return decode(payload)[0].type is not None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
