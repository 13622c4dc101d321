"""An event in the caller's transaction, beside the bare INSERT of the same row.

``pytest benchmarks/bench_transactions.py --benchmark-only``. Each call happens in a transaction
that is open already and is rolled back at the end: what is measured is the statement.
"""

from __future__ import annotations

import contextlib
import itertools
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import psycopg
import pytest
from sqlalchemy import create_engine
from tests.support.postgres import new_database

import sidelight
from sidelight import arg, emits
from sidelight.runtime.process import RUNTIME
from sidelight.transactions.outbox.table import outbox_table

Target: TypeAlias = Any
_RECORD = secrets.token_bytes(230)  # as many bytes as the decorated call's has
_INSERT = "INSERT INTO sidelight_outbox (position, event_id, record) VALUES ({0}, {0}, {0})"


def _work(target: Target, number: int) -> int:
    return number + 1


_guarded = emits("artifact_received", transaction=arg.target, artifact_id=arg.number)(_work)
_strict = emits("artifact_received", transaction=arg.target, artifact_id=arg.number, strict=True)(
    _work
)


def _bare(mark: str) -> Callable[[Target, int], int]:
    statement = _INSERT.format(mark)

    def insert(target: Target, number: int) -> int:
        execute = getattr(target, "exec_driver_sql", None) or target.execute
        execute(statement, (number, f"{number:036}", _RECORD))
        return number + 1

    return insert


@contextlib.contextmanager
def _sqlite(directory: Path) -> Iterator[Target]:
    url = f"sqlite:///{directory / 'business.db'}"
    with contextlib.closing(sqlite3.connect(directory / "business.db")) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    engine = create_engine(url)
    outbox_table().create(engine)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


@contextlib.contextmanager
def _postgresql(_: Path) -> Iterator[Target]:
    url = new_database()
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    outbox_table().create(engine)
    engine.dispose()
    with psycopg.connect(url) as connection:
        yield connection
        connection.rollback()


_SERVERS = {"SQLite, SQLAlchemy": (_sqlite, "?"), "PostgreSQL, psycopg": (_postgresql, "%s")}
_WAYS = ("bare INSERT", "strict", "guarded")


@pytest.mark.parametrize("way", _WAYS)
@pytest.mark.parametrize("server", _SERVERS)
def test_insert(benchmark: Any, server: str, way: str, tmp_path: Path) -> None:
    opened, mark = _SERVERS[server]
    call = {"bare INSERT": _bare(mark), "strict": _strict, "guarded": _guarded}[way]
    sidelight.configure(f"sqlite:///{tmp_path / 'events.db'}", relay="external", otlp=False)
    benchmark.group = server
    numbers = itertools.count(1)
    try:
        with opened(tmp_path) as target:
            (getattr(target, "exec_driver_sql", None) or target.execute)("SELECT 1")
            _bare(mark)(target, 0)  # the transaction has begun to write
            benchmark.pedantic(
                call, setup=lambda: ((target, next(numbers)), {}), rounds=3000, warmup_rounds=200
            )
    finally:
        RUNTIME.close(1.0)
    assert not sidelight.emission.EMITTER.losses
