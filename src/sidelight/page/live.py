"""The live tail: events as they are stored, as one stream of server-sent events."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final, NamedTuple

import msgspec
from starlette.concurrency import run_in_threadpool

from sidelight.exceptions import StoreError
from sidelight.store import EVENT_COLUMNS, Event, Page, Store

_PAUSE: Final = 1.0  # seconds between two questions to the store
_LOOK: Final = 0.1  # seconds after which the end of the server is noticed
_LATE: Final = 2_000_000_000  # ns: relays commit in another order than they began
SHOWN: Final = 50  # events that the page shows, and that one answer holds
_READ: Final = 20_000  # events after which an answer goes on with the newest
_KNOWN: Final = 100_000  # ids that are remembered
_ID: Final = EVENT_COLUMNS.index("event_id")
_RECORDED: Final = EVENT_COLUMNS.index("recorded_at")


class Arrived(NamedTuple):
    """What was stored since the last answer.

    Attributes:
        events: the newest, the latest last.
        left_out: how many others there were.
        is_exact: False where there were more than that.
    """

    events: list[Event]
    left_out: int = 0
    is_exact: bool = True


class Tail:
    """What one reader of the live tail has seen.

    The tail is for the eye: where more events arrive than a page can show, it leaves some out and
    says how many. `sidelight tail` shows all.

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
            known = [row[_ID] for row in page.rows if self._is_known(row[_RECORDED])]
            self._known.update(dict.fromkeys(known))
            if len(known) < len(page):
                break

    def _is_known(self, recorded: object) -> bool:
        return isinstance(recorded, int) and recorded <= self._after  # a crafted row may hold text

    def new(self) -> Arrived:
        """Return the newest events that were stored since."""
        latest: list[Any] = []
        fresh: dict[str, None] = {}
        read = 0
        for page in self._pages():
            new = [row for row in page.rows if row[_ID] not in self._known]
            fresh.update(dict.fromkeys(row[_ID] for row in new))
            latest = [*latest, *new][-SHOWN:]
            self._after = max(self._after, page.recorded_until)
            read += len(page)
            if read >= _READ:
                break
        arrived = Arrived(Page(latest, self._after).events, len(fresh) - len(latest))
        if read >= _READ:
            newest = [*self._store.events(newest_first=True, limit=SHOWN)][::-1]
            unseen = [event for event in newest if event.event_id not in self._known]
            fresh.update((event.event_id, None) for event in unseen)
            self._after = max(self._after, *(event.recorded_ns for event in newest))
            arrived = Arrived(unseen, len(fresh) - len(unseen), is_exact=False)
        self._known.update(fresh)
        while len(self._known) > _KNOWN:
            self._known.popitem(last=False)
        return arrived

    def _pages(self) -> Iterator[Page]:
        return self._store.pages(recorded_after=max(self._after - _LATE, 0))

    def _newest(self) -> int:
        latest = self._store.events(newest_first=True, limit=SHOWN)
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
            arrived = await run_in_threadpool(tail.new)
        except StoreError:
            yield "event: away\ndata: {}\n\n"
            arrived = Arrived([])
        for event in arrived.events:
            yield f"id: {event.recorded_ns}\ndata: {_json(show(event))}\n\n"
        if arrived.left_out:
            more = {"left_out": arrived.left_out, "is_exact": arrived.is_exact}
            yield f"event: more\ndata: {_json(more)}\n\n"
        if not arrived.events:
            yield ": \n\n"  # a comment: tells a reader that has gone
        for _ in range(round(_PAUSE / _LOOK)):
            if is_ending():
                return
            await asyncio.sleep(_LOOK)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
