"""The relay: prepared records into SQLite, with counters and indexes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.relay_speed import drain, prepare

_RECORDS = 20_000


@pytest.fixture
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Each round drains a new spool."""

    def setup() -> None:
        directory: Path = tmp_path_factory.mktemp("relay")
        prepare(directory, _RECORDS)

    return setup


def test_drain(benchmark: Any, prepared: Any) -> None:
    benchmark.extra_info["records"] = _RECORDS
    benchmark.pedantic(drain, setup=prepared, rounds=5)
