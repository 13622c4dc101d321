"""Would the store take what waits for it? Tried, and undone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Final

import msgspec

from sidelight.cli.spool.segments import Found
from sidelight.exceptions import SinkRefusedError, SinkUnavailableError
from sidelight.record import decode
from sidelight.settings import public_url
from sidelight.spool import PAGE, Scanner, Segment
from sidelight.store import StoreSink

_TRIED: Final = 2000
"""Records of a segment: a rule may be about one of them only."""


def refusal(url: str, segments: Iterable[Found]) -> str:
    """Why a store does not take what waits in segments of its; "" where it would."""
    with contextlib.closing(StoreSink(url)) as store:
        for each in segments:
            if each.meta.get("store", public_url(url)) != public_url(url):
                continue
            try:
                _rehearse(store, each)
            except (SinkUnavailableError, SinkRefusedError) as error:
                return str(error.facts["problem"])
            except Exception as error:  # noqa: BLE001  # as a relay has it: it chokes on a value
                return repr(error)
    return ""


def _rehearse(store: StoreSink, found: Found) -> None:
    """Try what the store has not taken of a segment.

    Raises:
        SinkUnavailableError: it would not take it now.
        SinkRefusedError: it would not take one of them.
    """
    with (
        contextlib.suppress(FileNotFoundError),
        contextlib.closing(Segment.inspect(found.path)) as at,
    ):
        batch = Scanner(at, at.cursors.get(store.name, PAGE)).batch(_TRIED)
        records = []
        for payload in batch.payloads:
            with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
                records.append(decode(payload))
        store.rehearse(records, found.meta)
