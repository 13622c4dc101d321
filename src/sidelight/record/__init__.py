"""The bytes of one emission: the wire format, values made plain, costs; no I/O.

A payload is a static part, encoded once for each point, and a moment, encoded at each call.
`format` alone knows the positions of their fields.
"""

from typing import TYPE_CHECKING

from sidelight.host import lazily
from sidelight.record.costs import BUDGET_NS, NO_COSTS, SHIFT, Costs, CostSummary, read_snapshot
from sidelight.record.durations import parse_duration
from sidelight.record.encoding import encode, encode_into, new_buffer, to_json
from sidelight.record.format import (
    CALL,
    CUT,
    DEEPEST,
    FRAME,
    FRAME_MAGIC,
    MAX_PAYLOAD,
    RANDOM,
    REMOTE_PARENT,
    SAMPLED,
    SPAN,
    Mode,
    Moment,
    MomentTuple,
    Origin,
    Outcome,
    Static,
    decode,
    encode_static,
    event_id,
    frame,
    is_deep,
    is_type_name,
    length_of_frames,
    moment_source,
    occurred_at,
    payload_at,
    payloads_at,
    random_bits,
    replaced,
    reseed,
    salvage,
)
from sidelight.record.ledger import (
    CostSnapshot,
    LedgerPart,
    blank_payload,
    is_ledger,
    ledger_frame,
    ledger_part,
)
from sidelight.record.limits import DEFAULT_LIMITS, Limits, limits_from, limits_of
from sidelight.record.semconv import (
    ARTIFACT_KEY,
    MAX_SPAN_TEXT,
    ORGANIZATION_KEY,
    STORE_COLUMNS,
    exception_attributes,
    record_flags,
    status_description,
    w3c_flags,
)
from sidelight.record.store_address import (
    DEFAULT_SPOOL,
    default_spool,
    is_same_store,
    is_same_stream,
    wrong_port,
)
from sidelight.record.values import (
    MAX_TEXT,
    error_details,
    error_message,
    error_type,
    plain,
    short_name,
    text,
)

if TYPE_CHECKING:
    from sidelight.record.event_types import (
        Catalogue,
        CheckedSpool,
        Declared,
        catalogue,
        validate_frame,
    )
    from sidelight.record.expectations import Expectation

__all__ = [
    "ARTIFACT_KEY",
    "BUDGET_NS",
    "CALL",
    "CUT",
    "DEEPEST",
    "DEFAULT_LIMITS",
    "DEFAULT_SPOOL",
    "FRAME",
    "FRAME_MAGIC",
    "MAX_PAYLOAD",
    "MAX_SPAN_TEXT",
    "MAX_TEXT",
    "NO_COSTS",
    "ORGANIZATION_KEY",
    "RANDOM",
    "REMOTE_PARENT",
    "SAMPLED",
    "SHIFT",
    "SPAN",
    "STORE_COLUMNS",
    "Catalogue",
    "CheckedSpool",
    "CostSnapshot",
    "CostSummary",
    "Costs",
    "Declared",
    "Expectation",
    "LedgerPart",
    "Limits",
    "Mode",
    "Moment",
    "MomentTuple",
    "Origin",
    "Outcome",
    "Static",
    "blank_payload",
    "catalogue",
    "decode",
    "default_spool",
    "encode",
    "encode_into",
    "encode_static",
    "error_details",
    "error_message",
    "error_type",
    "event_id",
    "exception_attributes",
    "frame",
    "is_deep",
    "is_ledger",
    "is_same_store",
    "is_same_stream",
    "is_type_name",
    "ledger_frame",
    "ledger_part",
    "length_of_frames",
    "limits_from",
    "limits_of",
    "moment_source",
    "new_buffer",
    "occurred_at",
    "parse_duration",
    "payload_at",
    "payloads_at",
    "plain",
    "random_bits",
    "read_snapshot",
    "record_flags",
    "replaced",
    "reseed",
    "salvage",
    "short_name",
    "status_description",
    "text",
    "to_json",
    "validate_frame",
    "w3c_flags",
    "wrong_port",
]

__getattr__ = lazily(
    __name__,
    {
        "event_types": "Catalogue CheckedSpool Declared catalogue validate_frame",
        "expectations": "Expectation",
    },
)
