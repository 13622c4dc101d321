"""The file formats of an export: each writes a part, and joins parts into one file."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from sidelight.store import EVENT_COLUMNS, Page

if TYPE_CHECKING:
    import pyarrow as pa

_ROW_GROUP: Final = 100_000  # events of a row group in a Parquet file
_SECOND: Final = 1_000_000_000
_TIMES: Final = frozenset({"occurred_at", "recorded_at"})

Declared = Mapping[str, Any]
"""The kinds of the declared attributes, by name: see `sidelight.store.declared_columns`."""


class Format(NamedTuple):
    """A file format.

    Attributes:
        write: writes pages into a file.
        join: writes several such files into one.
    """

    write: Callable[[IO[bytes], Iterable[Page], Declared], None]
    join: Callable[[IO[bytes], Sequence[IO[bytes]]], None]


# -- text --------------------------------------------------------------------------------------


def _write_jsonl(file: IO[bytes], pages: Iterable[Page], _: Declared) -> None:
    for page in pages:
        for event in page.events:
            file.write(event.model_dump_json().encode())
            file.write(b"\n")


def _write_csv(file: IO[bytes], pages: Iterable[Page], declared: Declared) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    writer = csv.writer(text)
    writer.writerow([*EVENT_COLUMNS, *(f"attributes.{name}" for name in declared)])
    for page in pages:
        columns = page.columns(declared)
        shown = [
            map(_iso, values) if name in _TIMES else values for name, values in columns.items()
        ]
        writer.writerows(zip(*shown, strict=True))
    text.flush()
    text.detach()


def _iso(ns: int) -> str:
    whole = datetime.fromtimestamp(ns // _SECOND, UTC)
    return f"{whole:%Y-%m-%dT%H:%M:%S}.{ns % _SECOND:09}Z"


def _join_text(file: IO[bytes], parts: Sequence[IO[bytes]]) -> None:
    for part in parts:
        shutil.copyfileobj(part, file)


def _join_csv(file: IO[bytes], parts: Sequence[IO[bytes]]) -> None:
    for number, part in enumerate(parts):
        heading = part.readline()
        if not number:
            file.write(heading)
        shutil.copyfileobj(part, file)


# -- Arrow -------------------------------------------------------------------------------------


class _Writer(Protocol):
    """What the writers of Parquet and of Arrow have in common."""

    def write_table(self, table: pa.Table) -> None: ...


_Open = Callable[[IO[bytes], Any], AbstractContextManager[_Writer]]


def _open_parquet(file: IO[bytes], schema: Any) -> AbstractContextManager[_Writer]:
    import pyarrow.parquet as pq  # noqa: PLC0415  # an extra

    writer: AbstractContextManager[_Writer] = pq.ParquetWriter(file, schema, compression="zstd")
    return writer


def _open_arrow(file: IO[bytes], schema: Any) -> AbstractContextManager[_Writer]:
    import pyarrow as pa  # noqa: PLC0415

    writer: AbstractContextManager[_Writer] = pa.ipc.new_file(file, schema)
    return writer


def _schema_of(declared: Declared) -> pa.Schema:
    """Return the columns of a table.

    Raises:
        ConfigurationError: pyarrow is not installed.
    """
    from sidelight.store import arrow_schema  # noqa: PLC0415  # an extra

    return arrow_schema(declared)


def _write_tables(open_: _Open) -> Callable[[IO[bytes], Iterable[Page], Declared], None]:
    def write(file: IO[bytes], pages: Iterable[Page], declared: Declared) -> None:
        schema = _schema_of(declared)
        import pyarrow as pa  # noqa: PLC0415

        batches: list[pa.RecordBatch] = []
        with open_(file, schema) as writer:
            for page in pages:
                batches.append(page.to_arrow(declared))
                if sum(batch.num_rows for batch in batches) >= _ROW_GROUP:
                    writer.write_table(pa.Table.from_batches(batches))
                    batches = []
            if batches:
                writer.write_table(pa.Table.from_batches(batches))

    return write


def _join_parquet(file: IO[bytes], parts: Sequence[IO[bytes]]) -> None:
    import pyarrow.parquet as pq  # noqa: PLC0415

    read = [pq.ParquetFile(part) for part in parts]
    with _open_parquet(file, read[0].schema_arrow) as writer:
        for each in read:
            for group in range(each.num_row_groups):
                writer.write_table(each.read_row_group(group))


def _join_arrow(file: IO[bytes], parts: Sequence[IO[bytes]]) -> None:
    import pyarrow as pa  # noqa: PLC0415

    read = [pa.ipc.open_file(part) for part in parts]
    with _open_arrow(file, read[0].schema) as writer:
        for each in read:
            for batch in range(each.num_record_batches):
                writer.write_table(pa.Table.from_batches([each.get_batch(batch)]))


FORMATS: Final[Mapping[str, Format]] = {
    ".parquet": Format(_write_tables(_open_parquet), _join_parquet),
    ".csv": Format(_write_csv, _join_csv),
    ".jsonl": Format(_write_jsonl, _join_text),
    ".arrow": Format(_write_tables(_open_arrow), _join_arrow),
}
"""The formats by the end of a file's name."""
