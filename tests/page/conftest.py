"""A store with known events, and its pages."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.commands import emit
from tests.support.pages import EXPECT, ORDERS, Served, serve
from tests.support.stored import BACKENDS


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """The orders."""
    path: Path = tmp_path_factory.mktemp("page") / "events.db"
    emit(ORDERS, path)
    return path


@pytest.fixture(scope="module")
def pages(request, tmp_path_factory) -> Iterator[Served]:
    """The pages of the orders, in SQLite unless a test names another database."""
    directory = tmp_path_factory.mktemp("pages")
    map_ = directory / "sidelight.toml"
    map_.write_text(EXPECT)
    url = BACKENDS[getattr(request, "param", "sqlite")](directory)
    spool = {"SIDELIGHT_SPOOL": str(directory / "spool")}
    emit(ORDERS, url, **spool)
    trace = ("--trace-url", "https://tracing.example/{trace_id}")
    options = ("--map", map_, "--catalogue", "voice_notes.events", *trace)
    with serve(url, *options, **spool) as served:
        yield served
