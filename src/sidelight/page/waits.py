"""The waits of one artifact: which expected events came, came late, or are missing. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from sidelight.record import Expectation
from sidelight.store import Event, Overdue


@dataclass(frozen=True, slots=True)
class Wait:
    """One expectation that concerns an artifact.

    Attributes:
        expectation: the expectation.
        state: "kept"; "late" where the event came after its time; "waiting" where there is time
            left, or where nothing is judged yet; "overdue"; or "unknown", see `Overdue`.
        took_ns: how long the wait was, or has been until now.
        reason: why it is unknown; "" otherwise.
        end: the event that ended the wait; None where none did.
    """

    expectation: Expectation
    state: Literal["kept", "late", "waiting", "overdue", "unknown"]
    took_ns: int
    reason: str
    end: Event | None

    @property
    def late_ns(self) -> int:
        """How much longer than expected (ns); 0 where it is not."""
        return max(self.took_ns - self.expectation.within_ns, 0)


def waits_of(
    events: Sequence[Event],
    expectations: Iterable[Expectation],
    judged: Iterable[Overdue],
    now_ns: int,
) -> Iterator[Wait]:
    """Compare the events of an artifact with what is expected.

    Args:
        events: of the artifact, in their order.
        expectations: all of them.
        judged: the store's judgement of this artifact, which knows how far delivery is.
        now_ns: the present, ns since 1970.
    """
    missing = {(each.after, each.one_of): each for each in judged}
    for expected in expectations:
        start = next((event for event in events if event.type == expected.after), None)
        if start is None:
            continue
        end = next((event for event in events if _ends(event, start, expected)), None)
        took = (now_ns if end is None else end.occurred_ns) - start.occurred_ns
        judgement = missing.get((expected.after, expected.one_of))
        if end is not None:
            state: Literal["kept", "late"] = "late" if took > expected.within_ns else "kept"
            yield Wait(expected, state, took, "", end)
        elif judgement is not None:
            yield Wait(expected, judgement.state, took, judgement.reason, None)
        else:
            yield Wait(expected, "waiting", took, "", None)


def _ends(event: Event, start: Event, expected: Expectation) -> bool:
    """Return whether an event ends the wait: it is not earlier, as for `Store.overdue`."""
    is_named = event.type in expected.one_of and event is not start
    return is_named and event.occurred_ns >= start.occurred_ns
