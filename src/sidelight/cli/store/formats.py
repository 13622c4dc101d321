"""The file formats of an export: each writes a part, and joins parts into one file."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from datetime import datetime, timedelta
from functools import lru_cache
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from sidelight.store import EVENT_COLUMNS, Page

if TYPE_CHECKING:
    import pyarrow as pa

_ROW_GROUP: Final = 100_000  # events of a row group in a Parquet file
_SECOND: Final = 1_000_000_000
_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001  # the text gets its Z afterwards
_QUOTED: Final = ',"\r\n'
_TIMES: Final = frozenset({"occurred_at", "recorded_at"})

Declared = Mapping[str, Any]
"""The kinds of the declared attributes, by name: see `sidelight.store.declared_columns`."""


class Format(NamedTuple):
    """A file format.

    Attributes:
        write: writes pages into a part.
        join: writes several parts into the file.
        require: checks that its library is installed.
    """

    write: Callable[[IO[bytes], Iterable[Page], Declared], None]
    join: Callable[[IO[bytes], Iterable[IO[bytes]]], None]
    require: Callable[[], None] = lambda: None


# -- text --------------------------------------------------------------------------------------


def _write_jsonl(file: IO[bytes], pages: Iterable[Page], _: Declared) -> None:
    for page in pages:
        file.write(page.to_json_lines())


def _write_csv(file: IO[bytes], pages: Iterable[Page], declared: Declared) -> None:
    heading = [*EVENT_COLUMNS, *(f"attributes.{name}" for name in declared)]
    file.write(_csv_of([_cells([name]) for name in heading]))
    for page in pages:
        columns = page.columns(declared).items()
        file.write(_csv_of([_cells(map(_iso, v) if name in _TIMES else v) for name, v in columns]))


def _csv_of(columns: Sequence[Sequence[str]]) -> bytes:
    return "".join(f"{','.join(row)}\r\n" for row in zip(*columns, strict=True)).encode()


def _cells(values: Iterable[object]) -> list[str]:
    """Return a column as `csv.writer` writes it, which examines each character by itself."""
    cells = ["" if each is None else str(each) for each in values]
    whole = "".join(cells)
    if not any(sign in whole for sign in _QUOTED):
        return cells
    return [_quoted(each) if any(sign in each for sign in _QUOTED) else each for each in cells]


def _quoted(cell: str) -> str:
    return '"{}"'.format(cell.replace('"', '""'))


@lru_cache(maxsize=1)  # the events of a transaction have one `recorded_at`
def _iso(ns: int) -> str:
    return f"{(_EPOCH + timedelta(0, ns // _SECOND)).isoformat()}.{ns % _SECOND:09}Z"


def _join_text(file: IO[bytes], parts: Iterable[IO[bytes]]) -> None:
    for part in parts:
        shutil.copyfileobj(part, file)


def _join_csv(file: IO[bytes], parts: Iterable[IO[bytes]]) -> None:
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


def _require_pyarrow() -> None:
    """Check that pyarrow is installed.

    Raises:
        ConfigurationError: it is not.
    """
    from sidelight.store import arrow_schema as _  # noqa: F401, PLC0415  # an extra


def _write_batches(file: IO[bytes], pages: Iterable[Page], declared: Declared) -> None:
    """Write a part of Arrow and of Parquet; the latter is compressed once, where it is joined."""
    from sidelight.store import arrow_schema  # noqa: PLC0415  # an extra

    schema = arrow_schema(declared)
    import pyarrow as pa  # noqa: PLC0415

    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.ipc.new_stream(file, schema, options=options) as writer:
        for page in pages:
            writer.write_batch(page.to_arrow(declared))


def _join_batches(open_: _Open) -> Callable[[IO[bytes], Iterable[IO[bytes]]], None]:
    def join(file: IO[bytes], parts: Iterable[IO[bytes]]) -> None:
        import pyarrow as pa  # noqa: PLC0415

        with ExitStack() as stack:
            writer: _Writer | None = None
            for part in parts:
                read = pa.ipc.open_stream(part)
                writer = writer or stack.enter_context(open_(file, read.schema))
                for table in _groups(read):
                    writer.write_table(table)

    return join


def _groups(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Yield tables of at least `_ROW_GROUP` events, and the rest."""
    import pyarrow as pa  # noqa: PLC0415

    group: list[pa.RecordBatch] = []
    for batch in batches:
        group.append(batch)
        if sum(each.num_rows for each in group) >= _ROW_GROUP:
            yield pa.Table.from_batches(group)
            group = []
    if group:
        yield pa.Table.from_batches(group)


FORMATS: Final[Mapping[str, Format]] = {
    ".parquet": Format(_write_batches, _join_batches(_open_parquet), _require_pyarrow),
    ".csv": Format(_write_csv, _join_csv),
    ".jsonl": Format(_write_jsonl, _join_text),
    ".arrow": Format(_write_batches, _join_batches(_open_arrow), _require_pyarrow),
}
"""The formats by the end of a file's name."""
