"""What each page shows: questions to the store, each bounded in time or in number.

Every function returns the names that the template of its page uses.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from itertools import chain, groupby, pairwise
from typing import Any, Final

from sidelight.exceptions import QueryError
from sidelight.page.beside import Beside
from sidelight.page.live import SHOWN
from sidelight.page.picture import bars_of, flow_of, main_way, rate_of, spread_of
from sidelight.page.waits import waits_of
from sidelight.record import alike
from sidelight.store import (
    Event,
    Judgement,
    Loss,
    Store,
    duration,
    from_ns,
    no_such_name,
    whole_ms,
)

_SECONDS: Final = 0.2  # the most that one question takes; the page says what was left out
_MINUTES: Final = 60  # of the picture of events per minute
_RECENT: Final = 5_000  # events that a picture of the rate is made of, or a search finds
_FLOWING: Final = 2_000  # events that the picture of the flow is made of
_SHOWN: Final = 50  # lines of a list
_LATEST: Final = 20  # events before the live tail adds to them
_LONGEST: Final = 1_000  # events of one timeline
_PROCESSES: Final = 10  # the latest
_REPORTS: Final = 1_000  # of costs and of losses, the latest; each is of one process
_TYPES: Final = 200
_STEPS: Final = 10  # of a funnel
DAYS: Final = 7  # of funnel, latencies, overdue artifacts and event types
_WINDOW: Final = f"{DAYS}d"


def now(store: Store, beside: Beside) -> dict[str, Any]:
    """Return what happens now: events, what is overdue, sinks, processes, losses, slow points."""
    found = store.events(
        since=f"{_MINUTES}m", newest_first=True, limit=_RECENT, time_limit=_SECONDS
    )
    recent = list(found)
    losses = store.losses(latest=_REPORTS)
    latest = recent[:_LATEST] or list(store.events(newest_first=True, limit=_LATEST))
    return {
        "rate": rate_of(recent, time.time_ns(), _MINUTES),
        "left_out": _before(recent[-1]) if len(recent) == _RECENT else found.left_out,
        "recent": len(recent),
        "latest": latest,
        "longest": SHOWN,
        "after": max((event.recorded_ns for event in latest), default=1),
        "overdue": _overdue(store, beside, since=_WINDOW),
        "expected": beside.expectations,
        "unknown": _unknown(store, beside, (each.after for each in beside.expectations)),
        "lags": beside.lags(),
        "losses": _by_reason(losses),
        "more_losses": len(losses) == _REPORTS,
        "processes": store.processes(limit=_PROCESSES),
        "slow": [cost for cost in store.costs(latest=_REPORTS) if cost.over_budget],
        "reports": _REPORTS,
    }


def _by_reason(losses: Iterable[Loss]) -> list[Loss]:
    """Add up the losses of all processes, because a store may know many thousands."""
    return [
        replace(latest, count=latest.count + sum(loss.count for loss in others))
        for _, (latest, *others) in groupby(losses, lambda loss: loss.reason)
    ]


def _overdue(store: Store, beside: Beside, **which: Any) -> Judgement:
    """Judge the expectations, in the time that a page may take."""
    limit = _SECONDS / max(len(beside.expectations), 1)
    return store.overdue(beside.expectations, waiting=beside.waiting(), time_limit=limit, **which)


def _unknown(store: Store, beside: Beside, types: Iterable[str]) -> list[str]:
    """Return a hint for each type that neither the store nor the catalogue knows."""
    unknown = store.unknown_names("type", types, declared=(d.name for d in beside.declared))
    return [no_such_name("type", name, close) for name, close in unknown.items()]


def search(store: Store, wanted: str) -> dict[str, Any]:
    """Return artifacts: those of an organization, or those with an attribute.

    The default is the latest artifacts.

    Raises:
        QueryError: the condition on an attribute is not one.
    """
    if any(sign in wanted for sign in "=<>"):
        asked = store.events(where=[wanted], newest_first=True, limit=_RECENT, time_limit=_SECONDS)
        events = list(asked)
        matching: dict[str, Event] = {}
        for event in events:
            if event.artifact_id:
                matching.setdefault(event.artifact_id, event)
        left_out = _before(events[-1]) if len(events) == _RECENT else asked.left_out
        more = len(matching) > _SHOWN and _SHOWN
        return {
            "q": wanted,
            "more": more,
            "found": [],
            "matching": [*matching.values()][:_SHOWN],
            "unknown": [],
            "left_out": left_out,
        }
    found = store.artifacts(organization_id=wanted or None, limit=_SHOWN + 1)
    more = len(found) > _SHOWN and _SHOWN
    return {
        "q": wanted,
        "more": more,
        "found": found[:_SHOWN],
        "matching": [],
        "unknown": [] if found or not wanted else _like(store, wanted),
        "left_out": None,
    }


def _like(store: Store, wanted: str) -> list[str]:
    """Return hints: the organizations and the latest artifacts that a misspelt id looks like."""
    organizations = store.unknown_names("organization_id", [wanted])
    artifacts = alike(wanted, [each.artifact_id for each in store.artifacts(limit=_RECENT)])
    hints = {"organization": organizations.get(wanted, ""), "artifact": artifacts}
    return [f"Did you mean the {kind} {close}?" for kind, close in hints.items() if close]


def knows(store: Store, artifact_id: str) -> bool:
    """Return whether the store has an event of an artifact."""
    return next(iter(store.events(artifact_id=artifact_id, limit=1)), None) is not None


def artifact(store: Store, beside: Beside, artifact_id: str) -> dict[str, Any]:
    """Return one artifact: its timeline as nested bars, and its waits.

    An unknown artifact has no bars.
    """
    events = list(store.events(artifact_id=artifact_id, limit=_LONGEST + 1))
    shown = events[:_LONGEST]
    waits = []
    if beside.expectations and shown and len(events) <= _LONGEST:
        judged = _overdue(store, beside, artifact_id=artifact_id, since=None)
        waits = list(waits_of(shown, beside.expectations, judged, time.time_ns()))
    return {
        "artifact_id": artifact_id,
        "organizations": sorted({e.organization_id for e in shown if e.organization_id}),
        "bars": bars_of(shown),
        "waits": waits,
        "late": {wait.end.event_id: wait for wait in waits if wait.end and wait.state == "late"},
        "more": len(events) > _LONGEST,
        "began": shown[0].occurred_at if shown else None,
        "took": max((e.occurred_ns for e in shown), default=0)
        - min((e.started_ns for e in shown), default=0),
        "trace_id": next((event.trace_id for event in shown if event.trace_id), None),
    }


def flow(store: Store, beside: Beside, asked: str) -> dict[str, Any]:
    """Return the way of the artifacts, the funnel over some steps, and the latency of each step.

    Args:
        store: the store.
        beside: names the declared types.
        asked: the steps as a person writes them, ``received transcribed completed,failed``; ""
            stands for the usual way.

    Raises:
        QueryError: a step is none.
    """
    recent = list(store.events(newest_first=True, limit=_FLOWING))
    drawn = flow_of(recent)
    words = asked.replace("→", " ").split()
    steps = [word.split(",") for word in words] or main_way(drawn)
    if len(steps) > _STEPS:
        raise QueryError(
            argument="steps", problem=f"there are {len(steps)}", remedy=f"give at most {_STEPS}"
        )
    has_more = len(recent) == _FLOWING
    limit = _SECONDS if has_more else None  # all events of a small store are examined soon
    each_limit = limit and limit / max(len(steps) - 1, 1)
    measured = [
        store.latency(start, end, since=_WINDOW, time_limit=each_limit)
        for start, end in pairwise(steps)
    ]
    latencies = [answer[0] for answer in measured]
    return {
        "flow": drawn,
        "left_out": _before(recent[-1]) if has_more else None,
        "steps": " ".join(",".join(step) for step in steps),
        "funnel": store.funnel(steps, since=_WINDOW, time_limit=limit) if steps else None,
        "unknown": _unknown(store, beside, chain.from_iterable(steps)),
        "latencies": list(zip(pairwise(steps), latencies, spread_of(latencies), strict=True)),
        "unmeasured": max((each.left_out for each in measured if each.left_out), default=None),
        "large": max((each.large for each in measured), default=0),
    }


def _before(oldest: Event) -> datetime:
    """Return the time before which a list that ends with this event shows nothing."""
    return from_ns(whole_ms(oldest.occurred_ns))


def points(store: Store, beside: Beside) -> dict[str, Any]:
    """Return what emissions cost the callers of each point; event types; silent points."""
    costs = store.costs(latest=_REPORTS)
    known = store.types(since=_WINDOW, limit=_TYPES)
    types = {each.type: (each.count, each.last_event_at) for each in known}
    unused = ((each.name, (0, None)) for each in beside.declared if each.name not in types)
    return {
        "costs": sorted((c for c in costs if c.count), key=lambda cost: -cost.p999),
        "idle": [cost.point for cost in costs if not cost.count],
        "types": sorted([*types.items(), *unused], key=lambda item: -item[1][0]),
        "more": len(known) == _TYPES,
        "histogram": [*(f"≤ {duration(round(10 ** (3 + at / 4)))}" for at in range(17)), "more"],
        "declared": {each.name: each for each in beside.declared},
        "reports": _REPORTS,
    }
