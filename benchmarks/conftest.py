"""pytest collects ``bench_*.py`` here; each house is set up once for a module that asks for it."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.houses import Address, Subjects
from benchmarks.setups import AbsentError


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Collect ``bench_*.py`` (what is named on the command line, pytest collects by itself)."""
    if file_path.match("bench_*.py") and not parent.session.isinitpath(file_path):
        module: pytest.Module = pytest.Module.from_parent(parent, path=file_path)
        return module
    return None


@pytest.fixture(scope="module")
def subjects(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Subjects]:
    """The subjects of the house that the test's parameter names."""
    address: Address = request.param
    pytest.importorskip("pytest_benchmark", reason="pip install '.[bench]'")
    try:
        with address.open(tmp_path_factory.mktemp(address.house)) as opened:
            gc.collect()
            yield opened
    except AbsentError as reason:
        pytest.skip(str(reason))
