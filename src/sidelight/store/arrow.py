"""Events as Apache Arrow, from which pandas, polars and DuckDB read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from sidelight.exceptions import ConfigurationError
from sidelight.store.columns import EVENT_COLUMNS, PREFIX, Kind

try:
    import pyarrow as pa
except ImportError as error:
    raise ConfigurationError(
        setting="Arrow and Parquet",
        problem="pyarrow is missing",
        remedy="pip install 'sidelight[arrow]'",
    ) from error

_TIME: Final = pa.timestamp("ns", tz="UTC")
_KINDS: Final[Mapping[Kind, pa.DataType]] = {
    "bool": pa.bool_(),
    "int": pa.int64(),
    "float": pa.float64(),
    "text": pa.string(),
    "time": pa.timestamp("us", tz="UTC"),
    "json": pa.string(),
}
_OWN: Final[Mapping[str, pa.DataType]] = {
    "occurred_at": _TIME,
    "recorded_at": _TIME,
    "duration": pa.int64(),
}


def arrow_schema(declared: Mapping[str, Kind]) -> pa.Schema:
    """Return the columns of an event, and of the declared attributes."""
    own = [(name, _OWN.get(name, pa.string())) for name in EVENT_COLUMNS]
    more = [(f"{PREFIX}{name}", _KINDS[kind]) for name, kind in declared.items()]
    return pa.schema([*own, *more])


def batch_of(columns: Mapping[str, Sequence[Any]], declared: Mapping[str, Kind]) -> pa.RecordBatch:
    """Make a batch of columns."""
    schema = arrow_schema(declared)
    arrays = [pa.array(columns[field.name], field.type) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def reader_of(
    batches: Iterator[pa.RecordBatch], declared: Mapping[str, Kind]
) -> pa.RecordBatchReader:
    """Make a reader that reads one batch after the other."""
    return pa.RecordBatchReader.from_batches(arrow_schema(declared), batches)
