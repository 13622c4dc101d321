"""The work that is instrumented, and what an instrumented callable is to the harness."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

Work: TypeAlias = Callable[[str, str, int], Any]
AsyncWork: TypeAlias = Callable[[str, str, int], Awaitable[Any]]

ARTIFACTS: Final = tuple(f"artifact-{number:04}" for number in range(1024))
ORGANIZATION: Final = "organization-7"


def make_work() -> Work:
    """Make a new function each time, because two subjects must not share the caches of one."""

    def work(artifact_id: str, organization_id: str, number: int) -> int:
        return number + 1

    return work


def make_long_work(nanoseconds: int) -> Work:
    """Work that takes about so long, in plain Python: it says what the machine does to any code."""
    trial = 10_000
    begun = time.perf_counter_ns()
    for _ in range(trial):
        pass
    turns = nanoseconds * trial // (time.perf_counter_ns() - begun)

    def work(artifact_id: str, organization_id: str, number: int) -> int:
        for _ in range(turns):
            pass
        return number + 1

    return work


def make_async_work() -> AsyncWork:
    """The same for a coroutine."""

    async def work(artifact_id: str, organization_id: str, number: int) -> int:
        return number + 1

    return work


@dataclass(frozen=True, slots=True)
class Subject:
    """Something to measure: a callable, and the same work without what is measured.

    Attributes:
        call: takes an artifact, an organization and a number.
        control: the same work, bare.
        asynchronous: both are coroutine functions.
        stored: asked after each call, outside of its time, whether the store has it; None where
            the call does not promise that.
    """

    call: Callable[[str, str, int], Any]
    control: Callable[[str, str, int], Any]
    asynchronous: bool = False
    stored: Callable[[], bool] | None = None

    @classmethod
    def of(
        cls,
        instrument: Callable[[Any], Any],
        *,
        asynchronous: bool = False,
        stored: Callable[[], bool] | None = None,
    ) -> Subject:
        """Instrument one copy of the work and leave another one bare."""
        make: Callable[[], Any] = make_async_work if asynchronous else make_work
        return cls(instrument(make()), make(), asynchronous, stored)
