"""What helps against each reason for a loss."""

from __future__ import annotations

import re
from typing import Final

_DEFECT: Final = "a defect: please report it, with the problem; what it hit is named there"
_ASIDE: Final = "`sidelight spool quarantined` shows it, `sidelight spool replay` delivers it"
_DISK: Final = "see what the system's log says of the disk; until it is well, nothing is power-safe"

REMEDIES: Final = {
    "commit without an answer": "use transaction= where the event must not be lost",
    "no room in the spool": "free the disk, raise spool_limit, or bring back the sink that failed",
    "attributes too large": "capture less: a record holds 256 KiB",
    "field … not captured": "correct the field's expression; the event was kept without it",
    "not recorded": _DEFECT,
    "point not woven": "correct the map: `sidelight points --check FILE` names each difference",
    "recursion limit": "the function runs at the end of the stack: let it recurse less deeply",
    "store not awaited": _DEFECT,
    "internal error": _DEFECT,
    "span not begun": "see what the TracerProvider says; events go on",
    "span not ended": "see what the TracerProvider says; events go on",
    "context not read": "see which library replaces OpenTelemetry's context; events go on",
    "spool nearly full: span left out": "raise spool_limit, or bring back the sink that failed",
    "span not copied": "see what the TracerProvider's spans raise",
    "OTLP is off: span not kept": "set OTEL_EXPORTER_OTLP_ENDPOINT, or remove SpoolSpanProcessor",
    "transaction not looked at": "see what `transaction=` names: nothing that has a transaction",
    "not joined: …": "the event was kept, outside the transaction: correct what the problem names",
    "event not as declared": "correct the point's attributes, or the catalogue: it was kept",
    "tracer provider not loaded": "correct OTEL_PYTHON_TRACER_PROVIDER",
    "older than the store keeps": "drain the spools before you prune, or keep events for longer",
    "unreadable record": _ASIDE,
    "damaged stretch of the spool": _ASIDE,
    "refused by …": _ASIDE,
    "not kept in quarantine": "empty it (`sidelight spool replay` or `discard`), or free the disk",
    "… rejected by the OTLP endpoint": "see the Collector's log: it takes only a part of them",
    "the OTLP endpoint takes no log records": "OTEL_LOGS_EXPORTER=none sends none",
    "spool full: telemetry let go": "bring back the OTLP endpoint, or raise spool_limit",
    "resource attributes too large": "make OTEL_RESOURCE_ATTRIBUTES shorter",
    "kept in memory: …": "make room for the spool, or make it writable: it dies with its process",
    "segment deleted under its writer": "find who deletes files in the spool's directory",
    "damaged header of a segment": _DISK,
    "segment not readable: …": _DISK,
    "not power-safe: …": _DISK,
    "segment not taken over: …": "make what dead processes left readable to whoever relays",
    "cursor not written: …": _DISK,
    "housekeeping failed: …": "make room for the spool, and see that files can be opened there",
    "relay failed": _DEFECT,
}
"""By reason; "…" stands for a name."""

_PATTERNS: Final = [
    (re.compile(re.escape(reason).replace("…", ".+")), remedy)
    for reason, remedy in REMEDIES.items()
]


def remedy_for(reason: str) -> str:
    """What helps; "" where the reason is not known here (another version has counted it)."""
    return next((remedy for pattern, remedy in _PATTERNS if pattern.fullmatch(reason)), "")
