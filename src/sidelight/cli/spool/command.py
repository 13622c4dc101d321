"""`sidelight spool`: show the segments of a spool directory, and its quarantine."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import typer
from rich.text import Text

from sidelight.cli.options import AsJson, SpoolDirectory, StoreUrl
from sidelight.cli.output import clean, console, named, print_json, remark, time_of
from sidelight.cli.palette import AMBER, GREEN, GREY, RED
from sidelight.cli.spool.commands import located
from sidelight.cli.spool.quarantine import (
    Listed,
    discard,
    plain_entry,
    print_entries,
    quarantined,
    replay,
)
from sidelight.cli.spool.segments import (
    Backlog,
    SegmentReport,
    read_spool,
    require_directory,
    unreadable,
)
from sidelight.cli.tables import print_table
from sidelight.settings import settle
from sidelight.spool import PAGE, Quarantine, filesystem
from sidelight.store import duration, number, plural, size, whole_seconds

_LATEST: Final = 20  # entries of the quarantine that are shown below the segments

spool: Final = typer.Typer(invoke_without_command=True, add_completion=False)
for command in (quarantined, replay, discard):
    spool.command()(command)


@spool.callback()
def show(
    context: typer.Context,
    *,
    directory: SpoolDirectory = None,
    store: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Show the spool: its segments, their writers, each sink's backlog, and the quarantine.

    The command takes no lock and changes nothing; processes may write and relays deliver meanwhile.
    A segment is named by the second part of its file's name.

    Examples:
      sidelight spool

      sidelight spool --json | jq 'select(.kind == "segment" and .alive == false)'
    """
    if context.invoked_subcommand is not None:
        if any(_is_given(context, name) for name in context.params):
            context.fail(f"write the options behind `{context.invoked_subcommand}`")
        return
    settings = settle(store, spool=directory)
    where = settings.spool
    require_directory(where)
    try:
        found = read_spool(where)
        entries = [*Quarantine(where).entries()]
    except OSError as error:
        raise unreadable(where, error) from error
    if as_json:
        print_json(_plain(where, found, entries))
    else:
        _print(where, settings.named_store, found, entries)


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _print(where: Path, store: str, found: Sequence[SegmentReport], entries: Listed) -> None:
    out = console()
    out.print(Text(clean(_headline(where, found))))
    if found:
        sinks = list(dict.fromkeys(sink for each in found for sink in each.sinks))
        columns = {
            "segment": [Text(each.name) for each in found],
            "writer": [*map(_writer, found)],
            "size": [Text(size(each.size)) for each in found],
            "full": [Text(f"{(each.end - PAGE) / max(1, each.size - PAGE):.0%}") for each in found],
            "age": [Text(_age(each)) for each in found],
            **{sink: [_backlog(each.backlog.get(sink)) for each in found] for sink in sinks},
        }
        print_table(columns, right=["size", "full"], lead=["segment", "writer"])
    for each in found:
        if each.damaged and not each.written:
            out.print(Text(f"{each.name}: {size(each.damaged)} are no records", style=RED))
    if entries:
        out.print(Text(f"\nquarantine: {plural(len(entries), 'entry', 'entries')}"))
        print_entries(entries[-_LATEST:])
        hint = "`sidelight spool quarantined` lists all, `sidelight spool replay` delivers them"
        remark(located(hint, where, store))


def _headline(where: Path, found: Sequence[SegmentReport]) -> str:
    kind = filesystem(where)
    held = sum(each.size for each in found)
    limit = _limit(found)
    holds = f"{plural(len(found), 'segment')}, {size(held)}" if found else "empty"
    of = f" of {size(limit)} allowed" if limit and found else ""
    return f"{where}{f' on {kind}' if kind else ''}: {holds}{of}"


def _limit(found: Sequence[SegmentReport]) -> int | None:
    limits = [each.meta["limit"] for each in found if isinstance(each.meta.get("limit"), int)]
    return min(limits, default=None)


def _writer(each: SegmentReport) -> Text:
    shown = Text(clean(each.writer))
    if each.host is not None:
        shown.append(clean(f" on {each.host}"), style=GREY)
    state, style = _state(each)
    return shown.append(f" {state}", style=style)


def _state(each: SegmentReport) -> tuple[str, str]:
    """Return the state of the writer and of the delivery, in words and a colour."""
    if each.stopped:
        return "stopped", RED
    if each.written:
        state = "alive" if each.end > PAGE else "alive, spare"
        if each.meta.get("relay") == "external" and each.end > PAGE:
            state += ", a relay reads it" if each.attended else ", no relay reads it"
        return state, GREEN
    state = "alive, has left it" if each.alive else "ended"
    return (f"{state}, a relay delivers it", GREEN) if each.attended else (state, AMBER)


def _age(each: SegmentReport) -> str:
    if each.created_ns is None:
        return ""
    age = time.time_ns() - each.created_ns
    return whole_seconds(age) if age >= 0 else f"in {whole_seconds(-age)}"


def _backlog(backlog: Backlog | None) -> Text:
    if backlog is None:
        return named(None)
    if not backlog.records:
        return Text("✓", style=GREY)
    shown = f"{number(backlog.records)} ({size(backlog.bytes)})"
    return Text(shown if backlog.oldest_ns is None else f"{shown}, {duration(backlog.age_ns)} old")


def _plain(
    where: Path, found: Sequence[SegmentReport], entries: Listed
) -> Iterator[dict[str, Any]]:
    yield {
        "kind": "spool",
        "directory": str(where),
        "filesystem": filesystem(where),
        "segments": len(found),
        "bytes": sum(each.size for each in found),
        "limit": _limit(found),
        "quarantined": len(entries),
    }
    for each in found:
        yield {
            "kind": "segment",
            "segment": each.path.stem,
            "service": each.service,
            "pid": each.meta.get("pid"),
            "host": each.host,
            "instance": each.meta.get("instance"),
            "store": each.meta.get("store"),
            "relay": each.meta.get("relay"),
            "alive": each.alive,
            "written": each.written,
            "attended": each.attended,
            "size": each.size,
            "used": each.end - PAGE,
            "created_at": time_of(each.created_ns),
            "behind": {
                sink: {
                    "records": backlog.records,
                    "bytes": backlog.bytes,
                    "oldest_at": time_of(backlog.oldest_ns),
                }
                for sink, backlog in each.backlog.items()
            },
            "damaged": each.damaged,
        }
    for identity, entry in entries:
        yield {"kind": "quarantined", **plain_entry(identity, entry)}
