"""The end of a span of an application's own provider: what each processor takes of the caller."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import processors
from benchmarks.houses import Address, Subjects
from benchmarks.work import ARTIFACTS, ORGANIZATION

_HOUSE = Address("processors", "processors")


@pytest.mark.parametrize(
    ("subjects", "name"),
    [
        pytest.param(_HOUSE, name, id=name)
        for name in (
            *(processors.BATCH, processors.SPOOL),
            *(processors.WHOLE_BATCH, processors.WHOLE_SPOOL),
        )
    ],
    indirect=["subjects"],
)
def test_span(benchmark: Any, subjects: Subjects, name: str) -> None:
    benchmark.group = name.partition(":")[0]
    assert benchmark(subjects[name].call, ARTIFACTS[0], ORGANIZATION, 7) == 8
