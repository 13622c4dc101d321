"""One call of everything that can live in one process: the hot path while one works on it.

Libraries that patch the interpreter (ddtrace, Sentry) or set global state (Logfire) are measured by
``python -m benchmarks``, each in a separate process.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from benchmarks import floor, ours, peers
from benchmarks.houses import Address, Subjects
from benchmarks.work import ARTIFACTS, ORGANIZATION

_REFERENCES = [
    (Address("floor", "floor"), floor.BARE),
    (Address("floor", "floor"), floor.WRAPT),
    (Address("floor", "floor"), floor.FLOOR),
    (Address("peers", "opentelemetry"), peers.SPAN),
    (Address("peers", "structlog"), "structlog JSON line"),
    (Address("peers", "eliot"), "Eliot action"),
    (Address("peers", "sqlite"), "direct SQLite insert"),
]
_OURS = [
    (ours.address(external=mode == "scheduled"), ours.title(mode, asynchronous=kind, span=span))
    for mode in ("scheduled", "awaited")
    for kind in (False, True)
    for span in (False, True)
]


@pytest.mark.parametrize(
    ("subjects", "name"),
    [pytest.param(*case, id=case[1]) for case in (*_REFERENCES, *_OURS)],
    indirect=["subjects"],
)
def test_call(benchmark: Any, subjects: Subjects, name: str) -> None:
    subject = subjects[name]
    benchmark.group = "awaited" if "awaited" in name else "call"
    arguments = (ARTIFACTS[0], ORGANIZATION, 7)
    if not subject.asynchronous:
        assert benchmark(subject.call, *arguments) == 8
        return
    call = subject.call

    async def hundred() -> int:
        value = 0
        for _ in range(100):
            value = await call(*arguments)
        return value

    benchmark.group += ", 100 calls in one event loop"
    with asyncio.Runner() as runner:
        assert benchmark(lambda: runner.run(hundred())) == 8
