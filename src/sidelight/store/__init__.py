"""Rows and counters, stored exactly once; questions about them.

SQLite and PostgreSQL hold one contract. The face loads lazily, because SQLAlchemy and pydantic are
slow to import: a relay imports neither.
"""

from typing import TYPE_CHECKING

from sidelight.host import lazily

if TYPE_CHECKING:
    from sidelight.store.address import Address, parse_url
    from sidelight.store.agreement import compare_counters
    from sidelight.store.arguments import OUTCOMES, NameFilter
    from sidelight.store.arrow import arrow_schema
    from sidelight.store.columns import EVENT_COLUMNS, declared_columns
    from sidelight.store.database import Connection, DatabaseError
    from sidelight.store.deliveries import call_of, ends_call
    from sidelight.store.engine import connect
    from sidelight.store.eraser import Eraser, Erasure
    from sidelight.store.erasure import Subject
    from sidelight.store.event import (
        UNREADABLE,
        Count,
        Counts,
        Event,
        Events,
        Loss,
        Process,
        TypeUse,
    )
    from sidelight.store.file_identity import beside
    from sidelight.store.filters import Filters
    from sidelight.store.funnel import Funnel, Step
    from sidelight.store.latency import Grouping, Latencies, Latency
    from sidelight.store.overdue import SILENT, Judgement, Mark, Overdue
    from sidelight.store.pages import Page
    from sidelight.store.postgres import (
        WRITE_TIMEOUT,
        DeadlineConnection,
        begin_statement,
        connect_server,
        connection_parameters,
    )
    from sidelight.store.queries import Store
    from sidelight.store.retention import Plan, Pruner
    from sidelight.store.rows import attributes_text, id_text, mark_undeclared
    from sidelight.store.schema import metadata
    from sidelight.store.sink import StoreSink
    from sidelight.store.sqlite import connect_file, is_unusable
    from sidelight.store.stretches import Axis, Stretch, stretches_of
    from sidelight.store.times import beginning_ns, from_ns, whole_ms
    from sidelight.store.words import (
        ago,
        duration,
        moment,
        no_such_name,
        number,
        plural,
        size,
        symbol,
        whole_seconds,
    )

__all__ = [
    "EVENT_COLUMNS",
    "OUTCOMES",
    "SILENT",
    "UNREADABLE",
    "WRITE_TIMEOUT",
    "Address",
    "Axis",
    "Connection",
    "Count",
    "Counts",
    "DatabaseError",
    "DeadlineConnection",
    "Eraser",
    "Erasure",
    "Event",
    "Events",
    "Filters",
    "Funnel",
    "Grouping",
    "Judgement",
    "Latencies",
    "Latency",
    "Loss",
    "Mark",
    "NameFilter",
    "Overdue",
    "Page",
    "Plan",
    "Process",
    "Pruner",
    "Step",
    "Store",
    "StoreSink",
    "Stretch",
    "Subject",
    "TypeUse",
    "ago",
    "arrow_schema",
    "attributes_text",
    "begin_statement",
    "beginning_ns",
    "beside",
    "call_of",
    "compare_counters",
    "connect",
    "connect_file",
    "connect_server",
    "connection_parameters",
    "declared_columns",
    "duration",
    "ends_call",
    "from_ns",
    "id_text",
    "is_unusable",
    "mark_undeclared",
    "metadata",
    "moment",
    "no_such_name",
    "number",
    "parse_url",
    "plural",
    "size",
    "stretches_of",
    "symbol",
    "whole_ms",
    "whole_seconds",
]

__getattr__ = lazily(
    __name__,
    {
        "agreement": "compare_counters",
        "arguments": "OUTCOMES NameFilter",
        "address": "Address parse_url",
        "arrow": "arrow_schema",
        "columns": "EVENT_COLUMNS declared_columns",
        "database": "Connection DatabaseError",
        "deliveries": "call_of ends_call",
        "engine": "connect",
        "eraser": "Eraser Erasure",
        "erasure": "Subject",
        "event": "UNREADABLE Count Counts Event Events Loss Process TypeUse",
        "funnel": "Funnel Step",
        "latency": "Grouping Latencies Latency",
        "overdue": "SILENT Judgement Mark Overdue",
        "pages": "Page",
        "postgres": "WRITE_TIMEOUT DeadlineConnection begin_statement"
        " connect_server connection_parameters",
        "queries": "Store",
        "retention": "Plan Pruner",
        "rows": "attributes_text id_text mark_undeclared",
        "schema": "metadata",
        "file_identity": "beside",
        "filters": "Filters",
        "sink": "StoreSink",
        "sqlite": "connect_file is_unusable",
        "stretches": "Axis Stretch stretches_of",
        "times": "beginning_ns from_ns whole_ms",
        "words": "ago duration moment no_such_name number plural size symbol whole_seconds",
    },
)
