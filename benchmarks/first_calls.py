"""What first calls cost: of a process, of a point, of a thread, of a library, and after a fork.

Each is the first of its kind in a fresh process, after `configure`, beside an undecorated twin that
is called just before. The times are of the calling thread's CPU clock, because a busy machine would
hide them otherwise. ``python -m benchmarks.first_calls`` prints a table.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

PROCESSES: Final = 40
#: The first call of a process → what follows in the same process.
FIRST: Final = ("scheduled", "awaited", "awaited in a loop", "joined")
FOLLOWING: Final = ("another point", "another thread", "after a fork")
AIMS: Final = dict.fromkeys((*FIRST, *FOLLOWING), 1000.0) | {"after a fork": 2000.0}
"""µs at p99."""

Measure: TypeAlias = Callable[[Callable[[], object]], None]


def in_a_child(directory: Path, kind: str, measure: Measure) -> Mapping[str, Callable[[], Any]]:
    """Decorate functions and configure sidelight; return what is to be called, in order.

    Args:
        directory: for store, spool and the caller's database.
        kind: one of `FIRST`.
        measure: called with each call that is to be measured, and with its twin before.
    """
    import sidelight  # noqa: PLC0415  # as an application does

    def work(key: str) -> str:
        return key

    async def work_later(key: str) -> str:
        return key

    arg = sidelight.arg
    scheduled = sidelight.emits("first", artifact_id=arg.key)(work)
    another = sidelight.emits("another", artifact_id=arg.key, organization_id=arg.key)(work)
    awaited = sidelight.emits("awaited", mode="awaited", artifact_id=arg.key)(work)
    later = sidelight.emits(start="began", mode="awaited", artifact_id=arg.key)(work_later)
    calls: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "scheduled": (lambda: work("k"), lambda: scheduled("k")),
        "awaited": (lambda: work("k"), lambda: awaited("k")),
        "another point": (lambda: work("k"), lambda: another("k")),
    }
    if kind == "joined":
        calls["joined"] = _joined(directory)
    sidelight.configure(
        f"sqlite:///{directory / 'events.db'}",
        otlp=False,
        outboxes=[f"sqlite:///{directory / 'business.db'}"] if kind == "joined" else None,
    )
    loop = asyncio.new_event_loop()
    calls["awaited in a loop"] = (
        lambda: loop.run_until_complete(work_later("k")),
        lambda: loop.run_until_complete(later("k")),
    )

    def pair(name: str) -> None:
        twin, call = calls[name]
        measure(twin)
        measure(call)

    def in_a_thread() -> None:
        thread = threading.Thread(target=pair, args=["scheduled"])
        thread.start()
        thread.join()

    return {
        kind: lambda: pair(kind),
        "another point": lambda: pair("another point"),
        "another thread": in_a_thread,
        "after a fork": lambda: pair("scheduled"),
    }


def _joined(directory: Path) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """A transaction of SQLAlchemy with an undecorated function, and one with an event."""
    from sqlalchemy import MetaData, create_engine, orm, text  # noqa: PLC0415

    from sidelight import arg, emits  # noqa: PLC0415
    from sidelight.outbox import table  # noqa: PLC0415

    engine = create_engine(f"sqlite:///{directory / 'business.db'}")
    table(MetaData()).create(engine)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE business (key TEXT)"))

    def work(session: orm.Session, key: str) -> None:
        session.execute(text("INSERT INTO business VALUES (:key)"), {"key": key})

    instrument = emits("joined", transaction=arg.session, artifact_id=arg.key)

    def run(function: Callable[[orm.Session, str], None]) -> None:
        with orm.Session(engine) as session:
            function(session, "k")
            session.commit()

    decorated = instrument(work)
    for _ in range(3):  # the library and the database are warm
        run(work)
    return lambda: run(work), lambda: run(decorated)


def _child(kind: str) -> None:
    """Print the microseconds of each first call above its twin, as JSON."""
    spent: list[int] = []

    def measure(call: Callable[[], object]) -> None:
        begun = time.thread_time_ns()
        call()
        spent.append(time.thread_time_ns() - begun)

    with tempfile.TemporaryDirectory(prefix="sidelight-bench-") as directory:
        found: dict[str, float] = {}
        for name, call in in_a_child(Path(directory), kind, measure).items():
            spent.clear()
            if name == "after a fork":
                read, write = os.pipe()
                if os.fork() == 0:
                    call()
                    os.write(write, json.dumps(spent).encode())
                    os._exit(0)
                spent.extend(json.loads(os.read(read, 1000)))
                os.wait()
            else:
                call()
            twin, mine = spent
            found[name] = (mine - twin) / 1e3
        sys.stdout.write(json.dumps(found))
        sys.stdout.flush()
        os._exit(0)


def first_calls(processes: int = PROCESSES) -> dict[str, list[float]]:
    """Measure; the microseconds above the twin, by the kind of first call, sorted."""
    found: dict[str, list[float]] = {kind: [] for kind in (*FIRST, *FOLLOWING)}
    command = [sys.executable, "-m", "benchmarks.first_calls"]
    for _ in range(processes):
        for kind in FIRST:
            answer = subprocess.run([*command, kind], capture_output=True, text=True, check=True)
            for name, spent in json.loads(answer.stdout).items():
                found[name].append(spent)
    return {name: sorted(spent) for name, spent in found.items()}


if __name__ == "__main__":
    if sys.argv[1:] and sys.argv[1] in FIRST:
        _child(sys.argv[1])
    else:
        sys.stdout.write("CPU µs of a first call above its twin\n   p50    p95    p99    aim\n")
        for _name, _spent in first_calls(int((*sys.argv[1:], PROCESSES)[0])).items():
            _numbers = [
                _spent[max(0, -int(-share * len(_spent) // 1) - 1)] for share in (0.5, 0.95, 0.99)
            ]
            _line = "".join(f"{number:6.0f} " for number in (*_numbers, AIMS[_name]))
            sys.stdout.write(f"{_line} {_name} ({len(_spent)})\n")
