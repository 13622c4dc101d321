"""What an event costs a store: bytes on the disk and time of the processor, index by index.

``python -m benchmarks.store_cost --store postgresql`` delivers the same events of a simulated year
to a store with all indexes and to stores that lack one, in turn. What is missing there is what the
index costs. The processor's time is that of the relay and of the server, the least of some rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import math
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import psycopg
from tests.support.postgres import Postgres, binaries, new_database

from benchmarks.scale.year import Year
from sidelight.record.format import FRAME, decode
from sidelight.spool import Record
from sidelight.store.sink import StoreSink
from sidelight.store.tables import EVENTS, TABLES

_BATCH: Final = 10_000  # records, as a relay reads them
_YEAR: Final = 10_000_000  # events
_SQLITE_SIZES: Final = (
    "SELECT tbl_name, dbstat.name, pgsize FROM dbstat"
    " JOIN sqlite_master ON sqlite_master.name = dbstat.name"
)
_POSTGRES_SIZES: Final = (
    "SELECT coalesce(parent.relname, class.relname),"
    " coalesce(whole.relname, part.relname, class.relname), pg_relation_size(part.oid)"
    " FROM pg_class AS class"
    " LEFT JOIN pg_inherits AS of ON of.inhrelid = class.oid"
    " LEFT JOIN pg_class AS parent ON parent.oid = of.inhparent"
    " JOIN LATERAL (SELECT class.oid, class.relname UNION ALL"
    " SELECT indexrelid, relname FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid"
    " WHERE indrelid = class.oid) AS part ON true"
    " LEFT JOIN pg_inherits AS of_index ON of_index.inhrelid = part.oid"
    " LEFT JOIN pg_class AS whole ON whole.oid = of_index.inhparent"
    " WHERE class.relkind = 'r' AND class.relnamespace = 'sidelight'::regnamespace"
)

Stores: TypeAlias = Callable[[], str]
"""Makes an empty store, and returns its URL."""
Cost: TypeAlias = tuple[float, float]
"""Seconds of the processor: the relay's and the server's."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.store_cost",
        description="What an event costs a store, index by index.",
    )
    parser.add_argument("--store", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--events", type=int, default=50_000, help="for each store (50,000)")
    parser.add_argument("--rounds", type=int, default=5, help="of which the least counts (5)")
    options = parser.parse_args(arguments)
    year = Year(_YEAR)
    records = [decode(framed[FRAME.size :]) for framed in year.frames(options.events)]
    with _stores(options.store) as (new, server_cpu):
        whole, *without = _costs(new, server_cpu, records, options.rounds)
        _fill(url := new(), records)
        sizes = _sizes(url)
    sys.stdout.write(_table(options.events, whole, without, sizes))
    return 0


def _costs(
    new: Stores, server_cpu: Callable[[], float], records: Sequence[Record], rounds: int
) -> list[Cost]:
    """What it costs with all indexes, without each of them, and without all."""
    variants = [(), *((index,) for index in EVENTS.indexes), tuple(EVENTS.indexes)]
    least = [(math.inf, math.inf)] * len(variants)
    for _, (place, dropped) in itertools.product(range(rounds), enumerate(variants)):
        spent = _fill(new(), records, dropped, server_cpu)
        least[place] = min(least[place], spent, key=sum)
    return least


def _fill(
    url: str,
    records: Sequence[Record],
    dropped: Sequence[str] = (),
    server_cpu: Callable[[], float] = lambda: 0.0,
) -> Cost:
    """Deliver the records to an empty store that lacks some indexes."""
    with contextlib.closing(StoreSink(url)) as sink:
        sink.write((), {})  # creates the tables
        with contextlib.closing(_connected(url)) as connection:
            for index in dropped:
                connection.execute(f"DROP INDEX {index}")
            connection.commit()
        server, relay = server_cpu(), time.process_time()
        for start in range(0, len(records), _BATCH):
            sink.write(records[start : start + _BATCH], {"instance": "benchmark"})
        return time.process_time() - relay, server_cpu() - server


def _sizes(url: str) -> dict[tuple[str, str], int]:
    """Table and table, or table and index → bytes; partitions count for their table."""
    query = _SQLITE_SIZES if url.startswith("sqlite") else _POSTGRES_SIZES
    with contextlib.closing(_connected(url)) as connection:
        sizes: dict[tuple[str, str], int] = {}
        for table, part, size in connection.execute(query):
            sizes[table, part] = sizes.get((table, part), 0) + int(size)
        return sizes


def _connected(url: str) -> Any:
    if url.startswith("sqlite"):
        return sqlite3.connect(url.removeprefix("sqlite:///"))
    return psycopg.connect(url, options="-c search_path=sidelight")


@contextlib.contextmanager
def _stores(backend: str) -> Iterator[tuple[Stores, Callable[[], float]]]:
    """Makes stores, and tells what their server has used of the processor so far."""
    if backend == "sqlite":
        with tempfile.TemporaryDirectory(prefix="sidelight-cost-") as place:
            numbers = itertools.count()
            yield lambda: f"sqlite:///{Path(place) / f'{next(numbers)}.db'}", lambda: 0.0
        return
    server = Postgres(binaries())
    server.start()
    try:
        yield lambda: new_database(server), server.cpu_seconds
    finally:
        server.close()


def _table(
    events: int, whole: Cost, without: Sequence[Cost], sizes: dict[tuple[str, str], int]
) -> str:
    def row(what: str, size: float, relay: float, server: float) -> str:
        spent = f"{relay / events * 1e6:.1f} | {server / events * 1e6:.1f}"
        return f"| {what} | {size / events:.0f} | {spent} |\n"

    *each, none = without
    indexes = {index: sizes["events", index] for index in EVENTS.indexes}
    tables = {table.name for table in TABLES}
    total = sum(size for (table, _), size in sizes.items() if table in tables)
    of_events = sum(size for (table, _), size in sizes.items() if table == "events")
    bare = (of_events - sum(indexes.values())) / events
    return "".join(
        (
            "| | bytes an event | µs of the relay's processor | of the server's |\n",
            "|---|--:|--:|--:|\n",
            row("all", total, *whole),
            row("without the indexes below", total - sum(indexes.values()), *none),
            *(
                row(f"`{index}`", indexes[index], whole[0] - cost[0], whole[1] - cost[1])
                for index, cost in zip(indexes, each, strict=True)
            ),
            f"\nThe row of `events` and its key: {bare:.0f} bytes.\n",
        )
    )


if __name__ == "__main__":
    raise SystemExit(main())
