"""Load beside the caller: busy threads, and a program that locks the store."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_HOLDER: Final = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def busy_threads(count: int) -> Iterator[None]:
    """``count`` threads that want the GIL all the time."""
    stop = False

    def burn() -> None:
        number = 0
        while not stop:
            number += 1

    threads = [threading.Thread(target=burn, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop = True
        for thread in threads:
            thread.join()


@contextlib.contextmanager
def held(database: Path) -> Iterator[None]:
    """Another process holds the SQLite file in an exclusive transaction: the store is frozen."""
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(database)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        try:
            assert holder.stdout is not None
            if holder.stdout.readline().strip() != "held":
                raise RuntimeError("the database could not be locked")
            yield
        finally:
            holder.kill()
