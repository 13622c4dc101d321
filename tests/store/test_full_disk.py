"""A store on a disk with no byte free can still be asked."""

import sqlite3
from contextlib import closing

import pytest
from tests.support.commands import sidelight
from tests.support.disks import small_disk
from tests.support.stored import record, store

from sidelight import Store

QUESTIONS = [
    ("events", "--json"),
    ("counts", "--json"),
    ("artifacts", "--json"),
    ("timeline", "a1", "--json"),
    ("doctor", "--json"),
]


@pytest.mark.parametrize("journal", ["wal", "wal, in use", "delete"])
def test_a_store_on_a_full_disk_is_read(tmp_path, journal):
    with small_disk(tmp_path / "disk", 8) as disk:
        path = disk.path / "events.db"
        url = f"sqlite:///{path}"
        store(url, [record(bits=n) for n in range(1, 6)])
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            if journal == "delete":
                connection.execute("PRAGMA journal_mode = DELETE")
            elif journal == "wal, in use":
                connection.execute("SELECT count(*) FROM events").fetchone()
            else:
                connection.close()
            disk.fill()
            assert disk.free == 0
            with Store(url) as opened:
                assert opened.size() == 5
            for question in QUESTIONS:
                said = sidelight(*question, "--store", url)
                assert said.code == 0 or question[0] == "doctor", said
                assert "Traceback" not in said.err
            told = sidelight("doctor", "--store", url)
            assert "full" in told.out + told.err
