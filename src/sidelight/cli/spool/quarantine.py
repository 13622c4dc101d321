"""`sidelight spool quarantined`, `replay` and `discard`: list, deliver or delete entries."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias

import msgspec
import typer
from rich.text import Text

from sidelight.cli.options import AsJson, Otlp, SpoolDirectory, StoreUrl, Stream
from sidelight.cli.output import (
    clean,
    complain,
    console,
    named,
    print_json,
    remark,
    time_of,
    with_progress,
)
from sidelight.cli.palette import RED
from sidelight.cli.spool.commands import located
from sidelight.cli.spool.replay import Outcome, Replay
from sidelight.cli.spool.segments import require_named, settings_for, unreadable, writers_of
from sidelight.cli.tables import print_table
from sidelight.exceptions import QueryError, SpoolError
from sidelight.record import decode, event_id, is_same_store, occurred_at, salvage
from sidelight.runtime import sinks_of
from sidelight.settings import settle
from sidelight.spool import Entry, Quarantine
from sidelight.store import moment, plural, size

_DIGITS: Final = 8  # of an id, in a table

Listed: TypeAlias = Sequence[tuple[str, Entry | None]]
Chosen: TypeAlias = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[ID]...", help="Take only these entries; the beginning of an id is enough."
    ),
]


def quarantined(
    ids: Chosen = None,
    *,
    directory: SpoolDirectory = None,
    store: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """List the quarantine: each entry, and why it was not delivered.

    Examples:
      sidelight spool quarantined

      sidelight spool quarantined 3f9a --json | jq .attributes
    """
    found = _chosen(Quarantine(_spool_of(store, directory)), ids)
    if as_json:
        print_json(plain_entry(*each) for each in found)
    elif found:
        print_entries(found)
    else:
        remark("the quarantine is empty")


def replay(
    ids: Chosen = None,
    *,
    directory: SpoolDirectory = None,
    store: StoreUrl = None,
    stream: Stream = None,
    otlp: Otlp = None,
    as_json: AsJson = False,
) -> None:
    """Deliver quarantined entries again, to the sinks that have not taken them.

    Without an id, all entries are delivered. The store takes an event once, however often it
    arrives. An entry that is refused again stays. Whole records in a damaged stretch are delivered,
    and the rest of the stretch stays. The exit code is 1 where an entry stays.

    Examples:
      sidelight spool replay

      sidelight spool replay 3f9a --otlp http://localhost:4318
    """
    where = _spool_of(store, directory)
    quarantine = Quarantine(where)
    found = _chosen(quarantine, ids)
    writers = [entry.writer for _, entry in found if entry is not None]
    settings = settings_for(directory, store, otlp, writers or writers_of(where), stream)
    here = settings.named_store
    rejected: Counter[tuple[str, str]] = Counter()
    made = sinks_of(settings, lambda *why: rejected.update([why]), lossless=True)
    sinks = {sink.name: sink for sink in made}
    attempt = Replay(quarantine, sinks, lambda writer: is_same_store(writer.get("store"), here))
    try:
        outcomes = [*attempt.run(with_progress(found, "delivering again", len(found)))]
    except OSError as error:
        raise _cannot_change(where, error) from error
    finally:
        for sink in sinks.values():
            sink.close()
    if as_json:
        print_json(outcomes)
    else:
        _print_outcomes(outcomes)
    for (reason, problem), count in rejected.items():
        complain(f"{reason}: {plural(count, 'time')}: {problem}")
    if rejected or any(outcome.stays for outcome in outcomes):
        raise typer.Exit(1)


def discard(
    ids: Chosen = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="Delete all entries.")] = False,
    directory: SpoolDirectory = None,
    store: StoreUrl = None,
) -> None:
    """Delete quarantined entries without delivering them.

    Examples:
      sidelight spool discard 3f9a 71c2
    """
    if not ids and not every:
        raise QueryError(
            argument="ids", problem="no entry is named", remedy="name entries, or give --all"
        )
    where = _spool_of(store, directory)
    quarantine = Quarantine(where)
    found = _chosen(quarantine, ids)
    try:
        for identity, _ in found:
            quarantine.discard(identity)
    except OSError as error:
        raise _cannot_change(where, error) from error
    remark(f"{plural(len(found), 'entry', 'entries')} deleted")


def _spool_of(store: str | None, directory: Path | None) -> Path:
    """Return the spool directory.

    Raises:
        SpoolError: the user named one that does not exist.
    """
    require_named(directory)
    return settle(store, spool=directory).spool


def _cannot_change(where: Path, error: OSError) -> SpoolError:
    return SpoolError(
        directory=where,
        problem=f"the quarantine cannot be changed ({error.strerror})",
        remedy=located("see `sidelight doctor`", where),
    )


def _chosen(quarantine: Quarantine, ids: Iterable[str] | None) -> Listed:
    """Return all entries, or those whose ids begin with the given texts.

    Raises:
        QueryError: a text begins no id, or several.
        SpoolError: the quarantine cannot be read.
    """
    try:
        listed = [*quarantine.entries()]
    except OSError as error:
        raise unreadable(quarantine.directory or Path(), error) from error
    if not ids:
        return listed
    chosen: dict[str, Entry | None] = {}
    for wanted in ids:
        matching = {identity: entry for identity, entry in listed if identity.startswith(wanted)}
        if len(matching) != 1:
            problem = f"{len(matching)} entries have ids that begin" if matching else "no id begins"
            spool = None if quarantine.directory is None else quarantine.directory.parent
            raise QueryError(
                argument="id",
                problem=f"{problem} with {wanted!r}",
                remedy=located("see `sidelight spool quarantined`", spool),
            )
        chosen |= matching
    return [*chosen.items()]


# -- output ----------------------------------------------------------------------------------


def plain_entry(identity: str, entry: Entry | None) -> dict[str, Any]:
    """Return an entry as JSON shows it."""
    if entry is None:
        return {"id": identity, "reason": "its file is damaged"}
    return {
        "id": identity,
        "reason": entry.reason,
        "problem": entry.problem,
        "refused_by": entry.refused_by,
        "missing_in": entry.sinks,
        "set_aside_at": time_of(entry.at),
        "writer": entry.writer,
        "segment": entry.segment,
        "offset": entry.offset,
        "bytes": len(entry.payload),
        **_content(entry),
    }


def _content(entry: Entry) -> dict[str, Any]:
    if entry.kind == "stretch":
        return {"whole_records": sum(1 for _ in salvage(entry.payload))}
    try:
        static, given = decode(entry.payload)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {"payload": entry.payload}
    occurred = occurred_at(given)
    return {
        "event_id": event_id(occurred, given.random) if static.type is not None else None,
        "type": static.type,
        "point": static.point,
        "outcome": static.outcome,
        "span": static.span_name,
        "artifact_id": given.artifact_id,
        "organization_id": given.organization_id,
        "occurred_at": time_of(occurred),
        "duration_ns": given.duration,
        "trace_id": None if given.trace is None else given.trace.hex(),
        "attributes": given.attributes,
    }


def print_entries(listed: Listed) -> None:
    """Print a table of entries."""
    rows = [
        (Text(_short(identity), style="bold"), *_cells(entry), _reason(entry))
        for identity, entry in listed
    ]
    headings = ("id", "content", "artifact", "time (UTC)", "reason")
    columns: dict[str, Sequence[Text]] = dict(zip(headings, zip(*rows, strict=True), strict=True))
    print_table(columns, lead=["id", "content", "time (UTC)"], prose="reason")


def _short(identity: str) -> str:
    return identity[:_DIGITS]


def _reason(entry: Entry | None) -> Text:
    if entry is None:
        return Text("its file is damaged")
    return Text.assemble((clean(entry.reason), RED), f": {clean(entry.problem)}")


def _cells(entry: Entry | None) -> tuple[Text, Text, Text]:
    """Return content, artifact and time of an entry."""
    if entry is None:
        return Text("?"), Text(), Text()
    content = _content(entry)
    if "whole_records" in content or "payload" in content:
        shown = size(len(entry.payload))
        if whole := content.get("whole_records"):
            shown += f", {plural(whole, 'whole record')} in it"
        return Text(shown), named(None), named(None)
    artifact, occurred = content["artifact_id"], content["occurred_at"]
    other = "losses, costs" if content["outcome"] == "ledger" else f"span {content['span']}"
    return (
        Text(clean(content["type"] or other)),
        named(None if artifact is None else str(artifact)),
        named(None if occurred is None else moment(occurred)),
    )


def _print_outcomes(outcomes: Sequence[Outcome]) -> None:
    delivered: Counter[str] = Counter()
    staying: dict[str, list[str]] = defaultdict(list)
    for outcome in outcomes:
        delivered.update(outcome.delivered)
        if outcome.stays:
            staying[outcome.stays].append(_short(outcome.identity))
    if not outcomes:
        remark("the quarantine is empty")
    for sink, count in delivered.items():
        console().print(Text(f"{sink}: {plural(count, 'record')} delivered"))
    for why, ids in staying.items():
        some = ", ".join(ids[:5]) + (", …" if len(ids) > 5 else "")
        complain(f"{plural(len(ids), 'entry stays', 'entries stay')} ({some}): {why}")
