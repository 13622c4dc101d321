"""Findings of the doctor, and the remedy for each reason of a loss."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

from sidelight.cli.spool.commands import located
from sidelight.settings import Settings

State: TypeAlias = Literal["ok", "note", "wrong"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        check: the part that was checked: "store", "spool", …
        state: "ok"; "note" is worth knowing; "wrong" makes the exit code 1.
        message: the state in words.
        remedy: what helps; "" where nothing has to be done.
    """

    check: str
    state: State
    message: str
    remedy: str = ""

    def located(self, settings: Settings) -> Finding:
        """Return it with a remedy whose commands reach the places of the settings."""
        places = settings.spool, settings.named_store, settings.stream
        return replace(self, remedy=located(self.remedy, *places))


_DEFECT: Final = "report this defect with its problem, which names the place"
_QUARANTINE: Final = (
    "`sidelight spool quarantined` lists the entries, `sidelight spool replay` delivers them"
)
_DISK: Final = "read the system's log about the disk; until it works, nothing is power-safe"
_PROVIDER: Final = "read the error of the TracerProvider; events are not affected"

REMEDIES: Final = {
    "commit without an answer": "use transaction= where the event must not be lost",
    "no room in the spool": "free the disk, raise spool_limit, or bring back the sink that failed",
    "attributes too large": "capture less: a record holds 256 KiB",
    "field … not captured": "correct the field's expression; the event was kept without the field",
    "not recorded": _DEFECT,
    "point not woven": "correct the map: `sidelight points --check FILE` names each difference",
    "recursion limit": "let the function recurse less deeply: it runs at the end of the stack",
    "store not awaited": _DEFECT,
    "emit refused": "correct the call of `sidelight.emit` that the problem names",
    "internal error": _DEFECT,
    "span not begun": _PROVIDER,
    "span not ended": _PROVIDER,
    "context not read": "find the library that replaces OpenTelemetry's context; events go on",
    "spool nearly full: span left out": "raise spool_limit, or bring back the sink that failed",
    "span not copied": "read the error that the TracerProvider's span raised",
    "OTLP is off: span not kept": "set OTEL_EXPORTER_OTLP_ENDPOINT, or remove SpoolSpanProcessor",
    "transaction not looked at": "correct `transaction=`: it names no object with a transaction",
    "not joined: …": "correct what the problem names; the event was kept outside the transaction",
    "outbox not drained: …": "name the outbox in configure(outboxes=[…]) or SIDELIGHT_OUTBOXES",
    "event not as declared": "correct the point's attributes or the catalogue; the event was kept",
    "tracer provider not loaded": "correct OTEL_PYTHON_TRACER_PROVIDER",
    "older than the store keeps": "check the clocks; `sidelight prune --keep-since DAY` and then"
    " `sidelight spool replay` store what was refused",
    "gone from the store": "keep a copy of the store from before it was restored or replaced: what"
    " is missing is there; make failovers wait for the replica (synchronous_commit)",
    "erased": "stop the processes that still emit for what was erased, or take that back:"
    " `sidelight erase --lift --artifact ID`",
    "unreadable record": _QUARANTINE,
    "damaged stretch of the spool": _QUARANTINE,
    "refused by …": _QUARANTINE,
    "not kept in quarantine": "free the disk, or empty the quarantine: `sidelight spool replay`"
    " or `sidelight spool discard --all`",
    "… rejected by the OTLP endpoint": "read the Collector's log: it accepts only a part of them",
    "the OTLP endpoint takes no log records": "set OTEL_LOGS_EXPORTER=none to send none",
    "spool full: stream let go": "bring back the stream, or raise spool_limit;"
    " `sidelight replay --to stream` sends what the store has",
    "spool full: telemetry let go": "bring back the OTLP endpoint, or raise spool_limit",
    "resource attributes too large": "make OTEL_RESOURCE_ATTRIBUTES shorter",
    "kept in memory: …": "make room for the spool, or make it writable: records in memory die with "
    "their process",
    "lost at exit: …": "make room for the spool, or raise the limit of open files (`ulimit -n`); "
    "records that only memory holds are lost with their process",
    "segment deleted under its writer": "find the program that deletes, moves or cuts files in the"
    " spool; a file that is cut while a process writes to it kills the process (SIGBUS)",
    "damaged header of a segment": _DISK,
    "segment not readable: …": _DISK,
    "not power-safe: …": _DISK,
    "hot segment on the disk: …": "make room on the tmpfs, or name another one in configure(hot=…)",
    "segment not taken over: …": "let the relay's user read the segments of ended processes",
    "cursor not written: …": _DISK,
    "housekeeping failed: …": "make room for the spool, and let files be opened there",
    "relay failed": _DEFECT,
}
"""By reason; "…" stands for a name."""

_PATTERNS: Final = [
    (re.compile(r"housekeeping failed: \w+(Error|Exception)"), _DEFECT),  # no system's words
    *(
        (re.compile(re.escape(reason).replace("…", ".+")), remedy)
        for reason, remedy in REMEDIES.items()
    ),
]


def is_set_aside(reason: str) -> bool:
    """Return whether records that are lost for this reason are in the quarantine."""
    return remedy_for(reason) == _QUARANTINE


def remedy_for(reason: str) -> str:
    """Return what helps; "" where another version counted a reason that is not known here."""
    return next((remedy for pattern, remedy in _PATTERNS if pattern.fullmatch(reason)), "")
