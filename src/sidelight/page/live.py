"""The live tail: events as they are stored, as one stream of server-sent events."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from typing import Final

import msgspec
from starlette.concurrency import run_in_threadpool

from sidelight.exceptions import StoreError
from sidelight.store import Event, Store

_PAUSE: Final = 1.0  # seconds between two questions to the store
_LOOK: Final = 0.1  # seconds after which the end of the server is noticed
_LATE: Final = 30_000_000_000  # ns: relays commit in another order than they began, so far apart
_MOST: Final = 200  # events that one answer holds
_KNOWN: Final = 20_000  # ids that are remembered


class Tail:
    """What one reader of the live tail has seen.

    Args:
        store: the store.
        after: the time (ns) at which the last event that the reader has was stored.
    """

    def __init__(self, store: Store, after: int) -> None:
        self._store = store
        self._after = after
        self._known: OrderedDict[str, None] = OrderedDict()
        self._read(max(after - _LATE, 0), until=after)

    def new(self) -> tuple[list[Event], int]:
        """The latest of the events that were stored since, and how many more there were."""
        found = self._read(max(self._after - _LATE, 0))
        return found[-_MOST:], max(len(found) - _MOST, 0)

    def _read(self, after: int, until: int | None = None) -> list[Event]:
        found = []
        for page in self._store.pages(recorded_after=after):
            for event in page.events:
                if until is not None and event.recorded_ns > until:
                    return []
                if event.event_id not in self._known:
                    self._known[event.event_id] = None
                    found.append(event)
                    self._after = max(self._after, event.recorded_ns)
            while len(self._known) > _KNOWN:
                self._known.popitem(last=False)
        return found


async def stream(
    store: Store, after: int, show: Callable[[Event], str], is_ending: Callable[[], bool]
) -> AsyncIterator[str]:
    """Yield the text of server-sent events until the server ends.

    Args:
        store: the store.
        after: see `Tail`.
        show: makes the HTML of one event.
        is_ending: whether the server ends.
    """
    tail = await run_in_threadpool(Tail, store, after)
    yield "retry: 2000\n\n"
    while not is_ending():
        try:
            events, more = await run_in_threadpool(tail.new)
        except StoreError:
            yield "event: away\ndata: {}\n\n"
            events, more = [], 0
        for event in events:
            yield f"id: {event.recorded_ns}\ndata: {_text(show(event))}\n\n"
        if more:
            yield f"event: more\ndata: {more}\n\n"
        if not events:
            yield ": \n\n"  # a comment: tells a reader that has gone
        for _ in range(round(_PAUSE / _LOOK)):
            if is_ending():
                return
            await asyncio.sleep(_LOOK)


def _text(html: str) -> str:
    return msgspec.json.encode(html).decode()
