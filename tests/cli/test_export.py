"""`sidelight export` and `Store.to_arrow`: every event once, in each format, on each database."""

import csv
import io
import json
import os
import re
import signal
import sqlite3
import sys
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import BaseModel
from tests.support.commands import of, sidelight, spawn
from tests.support.simulated import records_of, simulate
from tests.support.stored import BACKENDS, NOON, SECOND, batches_of, record, sqlite, store

from sidelight import Store
from sidelight.cli.store import formats
from sidelight.record.event_types import Catalogue
from sidelight.store import declared_columns, pages

LIVES = simulate(60)
NUMBER = len(records_of(LIVES))


def rows_of(table):
    """The rows, with times of nanoseconds as integers, which Python's datetime cannot hold."""
    exact = [
        field.with_type(pa.int64()) if field.type == pa.timestamp("ns", tz="UTC") else field
        for field in table.schema
    ]
    return table.cast(pa.schema(exact)).to_pylist()


READERS = {
    ".parquet": lambda path: rows_of(pq.read_table(path)),
    ".arrow": lambda path: rows_of(pa.ipc.open_file(path).read_all()),
    ".csv": lambda path: list(csv.DictReader(io.StringIO(path.read_text(), newline=""))),
    ".jsonl": lambda path: [*map(json.loads, path.read_text().splitlines())],
}


@pytest.fixture(scope="module", params=sorted(BACKENDS))
def filled(request, tmp_path_factory):
    url = BACKENDS[request.param](tmp_path_factory.mktemp("filled"))
    store(url, *batches_of(records_of(LIVES), 20))
    return url


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(pages, "_PAGE", 7)
    monkeypatch.setattr("sidelight.cli.store.export._PAGES", 2)


@pytest.mark.parametrize("format", sorted(READERS))
def test_every_event_is_exported_once(filled, tmp_path, format, small_parts):
    path = tmp_path / f"events{format}"
    said = sidelight("export", "--to", path, *of(filled))
    assert said.code == 0, said.err
    assert f"{NUMBER} events in {path}" in said.err
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    read = READERS[format](path)
    with Store(filled) as opened:
        events = {event.event_id: event for event in opened.events()}
    assert sorted(row["event_id"] for row in read) == sorted(events)
    for row in read:
        event = events[row["event_id"]]
        assert row["type"] == event.type
        attributes = row["attributes"]
        if format == ".jsonl":
            assert row == json.loads(event.model_dump_json())
            continue
        assert json.loads(attributes) == event.attributes
        if format == ".csv":
            assert row["occurred_at"].endswith(f"{event.occurred_ns % 10**9:09}Z")
            assert int(row["duration"] or 0) == (event.duration_ns or 0)
        else:
            assert row["artifact_id"] == event.artifact_id
            assert row["duration"] == event.duration_ns
            assert (row["occurred_at"], row["recorded_at"]) == (
                event.occurred_ns,
                event.recorded_ns,
            )


def test_filters_choose_what_is_exported(filled, tmp_path):
    path = tmp_path / "events.jsonl"
    options = ["--failed", "--where", "error.type=OSError", "--json"]
    (said,) = sidelight("export", "--to", path, *options, *of(filled)).json
    late = sum(life.fate == "failed_late" for life in LIVES)
    assert (said["events"], len(READERS[".jsonl"](path))) == (late, late)
    until = datetime.fromisoformat(said["recorded_until"])
    assert timedelta(0) < datetime.now(UTC) - until < timedelta(hours=1)


def test_a_job_that_carries_the_end_on_exports_nothing_again(filled, tmp_path):
    """It is handed back where no event is new; a time that it asks for is never gone behind."""
    ask = ("export", "--json", *of(filled), "--to")
    for n, begin in enumerate(("2100-01-01", datetime.now(UTC).isoformat())):
        (said,) = sidelight(*ask, tmp_path / f"{n}.csv", "--recorded-after", begin).json
        until = datetime.fromisoformat(said["recorded_until"])
        assert (said["events"], until) == (0, datetime.fromisoformat(begin).replace(tzinfo=UTC))
    with Store(filled) as opened:
        (*_, last) = opened.pages()
    begin = datetime.fromtimestamp(last.recorded_until // 10**9 - 1, UTC).isoformat()
    (said,) = sidelight(*ask, tmp_path / "again.csv", "--recorded-after", begin).json
    assert (said["events"] > 0, said["recorded_until"]) == (True, begin)


@pytest.mark.parametrize("format", sorted(READERS))
def test_an_export_of_nothing_is_a_file_with_its_columns(tmp_path, filled, format):
    path = tmp_path / f"events{format}"
    assert sidelight("export", "--to", path, "--type", "unheard", *of(filled)).code == 0
    assert READERS[format](path) == []
    if format == ".parquet":
        assert "event_id" in pq.read_schema(path).names


# -- typed by the catalogue ----------------------------------------------------------------------

DECLARED = """
from datetime import datetime
from pydantic import BaseModel
from sidelight import catalogue

@catalogue.event("received")
class Received(BaseModel):
    artifact_id: str
    words: int
    kind: str | None = None
    share: float | int = 1
    when: datetime | None = None
    parts: list[int] = []
"""


def declared():
    made = Catalogue()

    @made.event("received")
    class Received(BaseModel):
        artifact_id: str
        words: int
        both: int
        odd: int

    @made.event("sent")
    class Sent(BaseModel):
        both: float | None
        odd: str

    return made


def test_columns_are_those_of_the_declarations():
    assert declared_columns(declared()) == {
        "both": "float",
        "odd": "json",
        "words": "int",
    }


@pytest.mark.usefixtures("empty_catalogue")
def test_attributes_become_typed_columns(tmp_path, monkeypatch):
    given = {"words": 5, "kind": "mail", "share": 2, "when": "2026-07-25T12:00:00Z", "parts": [1]}
    wrong = {"words": "many", "kind": 5, "share": None, "when": "soon", "other": 1}
    store(
        url := sqlite(tmp_path),
        [record(attributes=a, at=NOON + n * SECOND) for n, a in enumerate((given, wrong))],
    )
    (tmp_path / "declares.py").write_text(DECLARED)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    path = tmp_path / "events.parquet"
    from sidelight import catalogue  # noqa: PLC0415

    try:
        said = sidelight("export", "--to", path, "--catalogue", "declares", *of(url))
        assert said.code == 0, said.err
        csv_path = tmp_path / "events.csv"
        sidelight("export", "--to", csv_path, "--catalogue", "declares", *of(url))
    finally:
        catalogue.clear()
        sys.modules.pop("declares", None)
    schema = pq.read_schema(path)
    assert schema.field("attributes.words").type == pa.int64()
    assert schema.field("attributes.share").type == pa.float64()
    first, second = READERS[".parquet"](path)
    assert first["attributes.when"] == datetime(2026, 7, 25, 12, tzinfo=UTC)
    assert (first["attributes.words"], first["attributes.parts"]) == (5, "[1]")
    assert {second[f"attributes.{name}"] for name in ("words", "kind", "share", "when")} == {None}
    assert json.loads(second["attributes"])["words"] == "many"
    assert READERS[".csv"](csv_path)[0]["attributes.words"] == "5"


HOSTILE = [
    {"k": 'say "a", "b"', "n": None},
    {"k": "a\r\nb\u2028c"},
    {"k": 2**60, "big": 1e300, "small": -5e-324, "whole": 1e22},
    {"k": "\\ \x1f \x7f \ud83d\ude00 \u202e", '"': ",", "": ""},
    {"k": [[{}], {"k": [1, None, True]}]},
]
SPELLED = {
    "in several lines": '{"k":\n [1]}',
    "with spaces": ' { "k" : 1.50 } ',
    "twice the same name": '{"k": 1, "k": 2}',
    "no JSON": "{",
    "two objects": "{},{}",
    "no object": "[1]",
    "not a number": '{"k": NaN}',
    "deep": f'{{"k": {"[" * 200}{"]" * 200}}}',
}
CHANGED = {
    "outcome": "odd",
    "mode": None,
    "type": b"\xff",
    "point": None,
    "duration": "long",
    "occurred_at": 1.5,
    "trace_id": 'a"b,c\n',
}


@pytest.fixture(params=[None, *SPELLED, *CHANGED])
def odd_page(request, tmp_path):
    """A page with an event whose row may be of any form."""
    records = [record(attributes=each, at=NOON + SECOND) for each in HOSTILE]
    store(url := sqlite(tmp_path), [*records, *records_of(LIVES)])
    if name := request.param:
        column, value = ("attributes", SPELLED[name]) if name in SPELLED else (name, CHANGED[name])
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
            connection.execute("PRAGMA writable_schema = ON")  # no column says NOT NULL
            connection.execute(
                "UPDATE sqlite_schema SET sql = replace(sql, 'NOT NULL', '') WHERE name = 'events'"
            )
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
            connection.execute(f"UPDATE events SET {column} = ? WHERE rowid = 3", (value,))
    with Store(url) as opened:
        (page,) = opened.pages()
        yield page


def test_lines_are_as_the_model_writes_them(odd_page):
    lines = odd_page.to_json_lines().decode().split("\n")
    assert lines.pop() == ""
    assert len(lines) == len(odd_page)
    for line, event in zip(lines, odd_page.events, strict=True):
        written, expected = json.loads(line), json.loads(event.model_dump_json())
        assert written == expected
        assert [*written] == [*expected]


def test_csv_is_as_the_standard_library_writes_it(odd_page):
    written, expected = io.BytesIO(), io.StringIO(newline="")
    formats.FORMATS[".csv"].write(written, [odd_page], {})
    columns = odd_page.columns({})
    csv.writer(expected).writerows([[*columns], *zip(*columns.values(), strict=True)])
    times = re.compile(r"\d{4}-\d\d-\d\dT[\d:]{8}\.\d{9}Z")
    ns = iter([*map(str, chain(*zip(columns["occurred_at"], columns["recorded_at"], strict=True)))])
    assert times.sub(lambda _: next(ns), written.getvalue().decode()) == expected.getvalue()


def test_arrow_is_read_batch_by_batch(filled, monkeypatch):
    monkeypatch.setattr(pages, "_PAGE", 20)
    with Store(filled) as opened:
        reader = opened.to_arrow(catalogue=declared())
        first = next(reader)
        assert first.num_rows == 20
        assert first.num_rows + sum(batch.num_rows for batch in reader) == NUMBER
        table = opened.to_arrow(type="received", where="words>500").read_all()
        assert table.num_rows == len(list(opened.events(type="received", where="words>500")))


# -- refused, interrupted, resumed ---------------------------------------------------------------


def test_an_export_of_a_damaged_store_ends_with_the_problem(tmp_path):
    store(url := sqlite(tmp_path), records_of(LIVES))
    with (tmp_path / "events.db").open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(size // 2)
        file.write(bytes([0xFF]) * (size - size // 2))
    said = sidelight("export", "--to", tmp_path / "events.csv", *of(url))
    assert (said.code, "malformed" in said.err) == (1, True), said.err


def test_what_cannot_be_exported_is_refused(filled, tmp_path):
    said = sidelight("export", "--to", tmp_path / "events.xlsx", *of(filled))
    assert (said.code, "--to names a file that ends in" in said.err) == (2, True)
    (tmp_path / "events.csv").write_text("")
    said = sidelight("export", "--to", tmp_path / "events.csv", *of(filled))
    assert (said.code, "exists; remove it" in said.err) == (1, True)
    said = sidelight("export", "--to", tmp_path / "no" / "where.csv", *of(filled))
    told = f"the directory {tmp_path / 'no'} does not exist; make it, or name another file"
    assert (said.code, told in said.err) == (1, True)
    said = sidelight("export", "--to", "", *of(filled), columns=200)
    assert (said.code, "--to names a file that ends in" in said.err, ": ." in said.err) == (
        2,
        True,
        False,
    )


@pytest.mark.parametrize("format", sorted(READERS))
def test_a_killed_export_continues_behind_its_last_part(
    filled, tmp_path, format, small_parts, monkeypatch
):
    path = tmp_path / f"events{format}"
    from sidelight.cli.store import export as module  # noqa: PLC0415

    whole, calls = module._Parts.write, []

    def dies(self, pages, declared):
        if len(calls) == 3:
            (self._directory / "unfinished").write_bytes(b"half a pa")
            raise KeyboardInterrupt
        calls.append(1)
        return whole(self, pages, declared)

    monkeypatch.setattr(module._Parts, "write", dies)
    said = sidelight("export", "--to", path, *of(filled))
    assert (said.code, "the same command continues" in said.err) == (1, True)
    assert not path.exists()
    monkeypatch.setattr(module._Parts, "write", whole)
    said = sidelight("export", "--to", path, "--failed", *of(filled))
    assert (said.code, "is of another export" in said.err) == (1, True)
    said = sidelight("export", "--to", path, *of(filled))
    assert said.code == 0
    assert "continuing behind" in said.err
    read = [row["event_id"] for row in READERS[format](path)]
    assert (len(read), len(set(read))) == (NUMBER, NUMBER)


@pytest.mark.parametrize("told", [None, '{"parts": 1}', ""])
def test_parts_of_another_version_are_refused(filled, tmp_path, told):
    path = tmp_path / "events.parquet"
    directory = tmp_path / "events.parquet.parts"
    directory.mkdir()
    if told is not None:
        (directory / "export.json").write_text(told)
    (directory / "000000-1-1.part").write_bytes(b"PAR1")
    said = sidelight("export", "--to", path, *of(filled))
    assert (said.code, "of another version of sidelight; remove it" in said.err) == (1, True)
    (directory / "000000-1-1.part").unlink()
    assert sidelight("export", "--to", path, *of(filled)).code == 0


def test_a_later_export_has_what_came_later(tmp_path):
    store(url := sqlite(tmp_path), [record(artifact="a1")])
    with Store(url) as opened:
        (first,) = opened.pages()
        assert len(first) == 1
        store(url, [record(artifact="a2")])
        (second,) = opened.pages(recorded_after=first.recorded_until)
        assert [event.artifact_id for event in second.events] == ["a2"]
        assert list(opened.pages(recorded_after=second.recorded_until)) == []


def test_a_process_that_is_killed_leaves_parts_that_continue(tmp_path):
    lives = simulate(3000)
    store(url := sqlite(tmp_path), *batches_of(records_of(lives), 2000))
    path = tmp_path / "events.jsonl"
    process = spawn("export", "--to", path, *of(url), env={**os.environ})
    until = time.monotonic() + 30
    while not list(Path(tmp_path).glob("events.jsonl.parts/*")) and process.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    if not path.exists():
        assert sidelight("export", "--to", path, *of(url)).code == 0
    assert len({row["event_id"] for row in READERS[".jsonl"](path)}) == len(records_of(lives))
