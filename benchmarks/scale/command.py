"""The command line: ``python -m benchmarks.scale --store postgresql --events 10_000_000``."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks import machine
from benchmarks.report import DIRECTORY
from benchmarks.scale.asking import Known, ask
from benchmarks.scale.filling import CHUNK, Drained, Filling
from benchmarks.scale.pruning import prune
from benchmarks.scale.report import markdown
from benchmarks.scale.year import Year


def main(arguments: Sequence[str] | None = None) -> int:
    """Fill, ask, prune and report."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale",
        description="A simulated year of events through spool and relay into one store.",
    )
    parser.add_argument(
        "--store",
        default="sqlite",
        help="sqlite, postgresql (a server of its own, with its defaults), or an empty store's URL",
    )
    parser.add_argument("--events", type=int, default=1_000_000, help="of the whole year")
    parser.add_argument("--ask-at", type=int, nargs="*", help="ask when there are so many, too")
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--directory", type=Path, help="where the store lies (the temporary one)")
    parser.add_argument("--report", type=Path, default=DIRECTORY, help="directory of the report")
    options = parser.parse_args(arguments)
    with (
        tempfile.TemporaryDirectory(prefix="sidelight-scale-", dir=options.directory) as place,
        _store(options.store, Path(place)) as (url, server_cpu),
    ):
        kind = url.partition(":")[0]
        year = Year(options.events, options.days)
        milestones = {*(options.ask_at or ()), options.events}
        report = {
            "facts": machine.facts(),
            "store": kind,
            "events": options.events,
            "days": options.days,
            **_measure(url, Path(place), year, milestones, server_cpu),
        }
    options.report.mkdir(parents=True, exist_ok=True)
    path = options.report / f"scale-{kind}-{options.events}.json"
    path.write_text(json.dumps(report, indent=1), encoding="utf-8")
    text = markdown(report)
    path.with_suffix(".md").write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return 0


def _measure(
    url: str, place: Path, year: Year, milestones: set[int], server_cpu: Callable[[], float]
) -> dict[str, Any]:
    drained: list[Drained] = []
    asked: dict[int, Any] = {}
    filling = Filling(url, place, year, server_cpu)
    try:
        with _progress(year.events) as tell:
            while year.written < year.events:
                until = min(m for m in milestones if m > year.written)
                drained.append(filling.chunk(min(CHUNK, until - year.written)))
                tell(drained[-1])
                if year.written in milestones:
                    answers, iterated = ask(url, _known(year))
                    asked[year.written] = {
                        "answers": [asdict(answer) for answer in answers],
                        "iterated": asdict(iterated),
                    }
    finally:
        filling.close()
    return {
        "drained": [asdict(each) for each in drained],
        "asked": asked,
        "pruned": asdict(prune(url, f"{round(year.days * 0.9)}d")),
        "bytes": _size(url),
    }


def _known(year: Year) -> Known:
    return Known(
        artifacts=tuple(year.known[:5000]),
        organizations=tuple(f"organization-{n:04}" for n in range(year.organizations)),
        begin=year.begin,
        end=year.begin + (year.end - year.begin) * year.written // year.events,
    )


@contextlib.contextmanager
def _store(named: str, place: Path) -> Iterator[tuple[str, Callable[[], float]]]:
    """The URL of an empty store, and what its server has used of the processor so far."""
    if named == "sqlite":
        yield f"sqlite:///{place / 'events.db'}", lambda: 0.0
    elif named == "postgresql":
        from tests.support.postgres import Postgres, binaries, new_database  # noqa: PLC0415

        server = Postgres(binaries())
        server.start()
        try:
            yield new_database(server), server.cpu_seconds
        finally:
            server.close()
    else:
        yield named, lambda: 0.0


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Callable[[Drained], None]]:
    """A bar on a terminal; a line for each tenth in a log."""
    out = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=out,
        disable=not out.is_terminal,
    )
    with bar:
        task = bar.add_task("draining", total=total)

        def tell(chunk: Drained) -> None:
            rate = chunk.events / chunk.seconds
            bar.update(task, completed=chunk.stored, description=f"draining, {rate:,.0f}/s")
            before = chunk.stored - chunk.events
            if not out.is_terminal and chunk.stored * 50 // total > before * 50 // total:
                out.print(
                    f"{chunk.stored:,} stored, {rate:,.0f}/s, {chunk.memory / 1e6:.0f} MB,"
                    f" load {chunk.load:.1f}"
                )

        yield tell


def _size(url: str) -> int:
    """Bytes that the store takes on the disk."""
    if url.startswith("sqlite"):
        path = Path(url.removeprefix("sqlite:///"))
        files = (each for each in path.parent.glob(f"{path.name}*") if each.is_file())
        return sum(each.stat().st_size for each in files)
    import psycopg  # noqa: PLC0415

    with psycopg.connect(url) as connection:
        size = connection.execute("SELECT pg_database_size(current_database())").fetchone()
        return int(size[0]) if size else 0
