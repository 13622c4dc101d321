"""The live tail: events as they are stored, as one stream of server-sent events."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Final

import msgspec
from starlette.concurrency import run_in_threadpool

from sidelight.exceptions import StoreError
from sidelight.store import Event, Page, Store

_PAUSE: Final = 1.0  # seconds between two questions to the store
_LOOK: Final = 0.1  # seconds after which the end of the server is noticed
_LATE: Final = 2_000_000_000  # ns: relays commit in another order than they began
_SHOWN: Final = 200  # events that one answer holds
_READ: Final = 5_000  # events that one question reads
_KNOWN: Final = 20_000  # ids that are remembered


class Tail:
    """What one reader of the live tail has seen.

    The tail is for the eye: where more events arrive than a page can show, it leaves some out and
    says so. `sidelight tail` shows all.

    Args:
        store: the store.
        after: the time (ns) at which the last event that the reader has was stored; 0 begins with
            the events that are stored from now on.
    """

    def __init__(self, store: Store, after: int) -> None:
        self._store = store
        self._after = after or self._newest()
        self._known: OrderedDict[str, None] = OrderedDict()
        for page in self._pages():
            known = [event for event in page.events if event.recorded_ns <= self._after]
            self._known.update((event.event_id, None) for event in known)
            if len(known) < len(page):
                break

    def new(self) -> tuple[list[Event], bool]:
        """Return the latest events that were stored since, and whether some were left out."""
        found: list[Event] = []
        read = 0
        for page in self._pages():
            found += [event for event in page.events if event.event_id not in self._known]
            read += len(page)
            if read >= _READ:
                self._after = max(self._after, self._newest())
                break
        for event in found:
            self._known[event.event_id] = None
            self._after = max(self._after, event.recorded_ns)
        while len(self._known) > _KNOWN:
            self._known.popitem(last=False)
        return found[-_SHOWN:], read >= _READ or len(found) > _SHOWN

    def _pages(self) -> Iterator[Page]:
        return self._store.pages(recorded_after=max(self._after - _LATE, 0))

    def _newest(self) -> int:
        latest = self._store.events(newest_first=True, limit=50)
        return max((event.recorded_ns for event in latest), default=0)


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
    tail: Tail | None = None
    yield "retry: 2000\n\n"
    while not is_ending():
        try:
            if tail is None:
                tail = await run_in_threadpool(Tail, store, after)
            events, more = await run_in_threadpool(tail.new)
        except StoreError:
            yield "event: away\ndata: {}\n\n"
            events, more = [], False
        for event in events:
            yield f"id: {event.recorded_ns}\ndata: {_text(show(event))}\n\n"
        if more:
            yield "event: more\ndata: {}\n\n"
        if not events:
            yield ": \n\n"  # a comment: tells a reader that has gone
        for _ in range(round(_PAUSE / _LOOK)):
            if is_ending():
                return
            await asyncio.sleep(_LOOK)


def _text(html: str) -> str:
    return msgspec.json.encode(html).decode()
