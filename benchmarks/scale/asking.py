"""Ask a store the questions of its users, in a separate process; measure time and memory."""

from __future__ import annotations

import multiprocessing
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import psutil

from benchmarks.scale.year import DAY, TYPES
from sidelight import Store
from sidelight.page import Beside, answers
from sidelight.record import Expectation
from sidelight.store.arrivals import Arrivals
from sidelight.store.times import from_ns

_TIMES: Final = 40
_EXPECTED: Final = (
    Expectation(
        after="artifact_received", one_of=("drafts_generated",), within=timedelta(minutes=10)
    ),
)
_ITERATED: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Answer:
    """How one question is answered: seconds, and rows of the last answer."""

    question: str
    median: float
    slowest: float
    rows: int


@dataclass(frozen=True, slots=True)
class Iterated:
    """A walk over very many events, one after the other.

    Attributes:
        memory: resident bytes before, and the peak during the question.
    """

    events: int
    seconds: float
    memory: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """Arguments of questions: some artifacts and organizations, and the days of the store."""

    artifacts: Sequence[str]
    organizations: Sequence[str]
    begin: int
    end: int


def ask(url: str, known: Known) -> tuple[list[Answer], Iterated]:
    """Ask everything, in a process that has done nothing before."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_ask, url, known).result()


def _ask(url: str, known: Known) -> tuple[list[Answer], Iterated]:
    chance = random.Random(7)
    with Store(url) as store:
        answers = [
            _answer(name, question) for name, question in _questions(store, known, chance).items()
        ]
        return answers, _iterate(store, known)


def _answer(name: str, question: Callable[[], Sequence[Any]]) -> Answer:
    spent = []
    rows: Sequence[Any] = ()
    for _ in range(_TIMES):
        begun = time.perf_counter()
        rows = question()
        spent.append(time.perf_counter() - begun)
    return Answer(name, statistics.median(spent), max(spent), len(rows))


def _questions(
    store: Store, known: Known, chance: random.Random
) -> Mapping[str, Callable[[], Sequence[Any]]]:
    def one(of: Sequence[str]) -> str:
        return of[int(chance.random() ** 2 * len(of))]

    def day() -> dict[str, Any]:
        begin = known.begin + int(chance.random() * (known.end - known.begin - DAY))
        return {"since": from_ns(begin), "until": from_ns(begin + DAY)}

    traces = [
        str(event.trace_id) for key in known.artifacts[:50] for event in store.timeline(key)[:1]
    ]
    tail = Arrivals()
    tail.new(store._read)
    beside = Beside(health=list, lags=list, waiting=list, expectations=_EXPECTED)
    month = {"since": from_ns(known.end) - timedelta(days=30)}
    return {
        "timeline of an artifact": lambda: store.timeline(one(known.artifacts)),
        "the newest 50": lambda: list(store.events(limit=50, newest_first=True)),
        "the newest 50 of an organization": lambda: list(
            store.events(organization_id=one(known.organizations), limit=50, newest_first=True)
        ),
        "the newest 50 of a type": lambda: list(
            store.events(type=one(TYPES), limit=50, newest_first=True)
        ),
        "a type on one day, 1,000 at most": lambda: list(
            store.events(type=one(TYPES), limit=1000, **day())
        ),
        "an organization on one day, 1,000 at most": lambda: list(
            store.events(organization_id=one(known.organizations), limit=1000, **day())
        ),
        "all of a trace": lambda: list(store.events(trace_id=one(traces))),
        "counts of the last 30 days": lambda: store.counts(**month),
        "counts of an organization, the whole year": lambda: store.counts(
            organization_id=one(known.organizations)
        ),
        "the latest 50 artifacts": lambda: store.artifacts(limit=50),
        "the latest 50 artifacts of an organization": lambda: store.artifacts(
            organization_id=one(known.organizations), limit=50
        ),
        "how many there are": lambda: [store.size()],
        "tail: what is new": lambda: tail.new(store._read),
        "types": lambda: store.types(since="7d"),
        "page Now": lambda: [answers.now(store, beside)],
        "page of an artifact": lambda: [answers.artifact(store, beside, one(known.artifacts))],
        "page Artifacts, an unknown organization": lambda: [answers.search(store, "nothing")],
        "page Artifacts, a rare attribute": lambda: [answers.search(store, "seconds=99")],
        "page Flow": lambda: [answers.flow(store, "")],
        "page Points": lambda: [answers.points(store, beside)],
    }


def _iterate(store: Store, known: Known) -> Iterated:
    process = psutil.Process()
    before = most = process.memory_info().rss
    begun = time.perf_counter()
    walked = 0
    for walked, _ in enumerate(_walk(store, known), 1):
        if walked % 20_000 == 0:
            most = max(most, process.memory_info().rss)
    return Iterated(walked, time.perf_counter() - begun, (before, most))


def _walk(store: Store, known: Known) -> Iterator[Any]:
    return store.events(since=from_ns(known.begin + DAY), limit=_ITERATED)
