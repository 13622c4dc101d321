"""A store with known events, and its pages."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.commands import emit
from tests.support.pages import EXPECT, ORDERS, Served, serve


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """The orders."""
    path: Path = tmp_path_factory.mktemp("page") / "events.db"
    emit(ORDERS, path)
    return path


@pytest.fixture(scope="module")
def pages(store) -> Iterator[Served]:
    """The pages of the orders."""
    map_ = store.with_name("sidelight.toml")
    map_.write_text(EXPECT)
    trace = ("--trace-url", "https://tracing.example/{trace_id}")
    with serve(store, "--map", map_, "--catalogue", "voice_notes.events", *trace) as served:
        yield served
