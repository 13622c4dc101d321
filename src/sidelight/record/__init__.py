"""The bytes of one emission: the wire format, values made plain, costs; no I/O.

A payload is a static part, encoded once for each point, and a moment, encoded at the call. Every
position in them is known in `format` only.
"""

from typing import TYPE_CHECKING

from sidelight.host import lazily
from sidelight.record.costs import BUDGET_NS, SHIFT, Costs, CostSummary
from sidelight.record.format import (
    CUT,
    FRAME,
    FRAME_MAGIC,
    MAX_PAYLOAD,
    RANDOM,
    REMOTE_PARENT,
    SAMPLED,
    SPAN,
    Moment,
    Origin,
    Outcome,
    Static,
    blank,
    decode,
    encode,
    encode_into,
    encode_static,
    event_id,
    frame,
    length_of_frames,
    occurred_at,
    random_bits,
    reseed,
)
from sidelight.record.json import to_json
from sidelight.record.limits import DEFAULT_LIMITS, Limits, limits_from, limits_of
from sidelight.record.names import Mode, is_type_name
from sidelight.record.semconv import (
    ARTIFACT_KEY,
    LONGEST,
    ORGANIZATION_KEY,
    exception_attributes,
    failure,
    w3c_flags,
)
from sidelight.record.values import (
    MAX_TEXT,
    SCALARS,
    error_details,
    error_message,
    error_type,
    plain,
    text,
)

if TYPE_CHECKING:
    from sidelight.record.event_types import Catalogue, Checked, Declared, catalogue, check

__all__ = [
    "ARTIFACT_KEY",
    "BUDGET_NS",
    "CUT",
    "DEFAULT_LIMITS",
    "FRAME",
    "FRAME_MAGIC",
    "LONGEST",
    "MAX_PAYLOAD",
    "MAX_TEXT",
    "ORGANIZATION_KEY",
    "RANDOM",
    "REMOTE_PARENT",
    "SAMPLED",
    "SCALARS",
    "SHIFT",
    "SPAN",
    "Catalogue",
    "Checked",
    "CostSummary",
    "Costs",
    "Declared",
    "Limits",
    "Mode",
    "Moment",
    "Origin",
    "Outcome",
    "Static",
    "blank",
    "catalogue",
    "check",
    "decode",
    "encode",
    "encode_into",
    "encode_static",
    "error_details",
    "error_message",
    "error_type",
    "event_id",
    "exception_attributes",
    "failure",
    "frame",
    "is_type_name",
    "length_of_frames",
    "limits_from",
    "limits_of",
    "occurred_at",
    "plain",
    "random_bits",
    "reseed",
    "text",
    "to_json",
    "w3c_flags",
]

__getattr__ = lazily(
    __name__,
    {
        "event_types": "Catalogue Checked Declared catalogue check",
    },
)
