"""`sidelight spool`: what lies in a spool directory, and what was set aside there."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import typer
from rich.text import Text

from sidelight.cli.options import AsJson, SpoolDirectory, StoreUrl
from sidelight.cli.output import (
    clean,
    console,
    duration,
    named,
    number,
    plural,
    print_json,
    remark,
    size,
    table,
    time_of,
)
from sidelight.cli.spool.quarantine import discard, plain_entry, quarantined, replay, table_of
from sidelight.cli.spool.segments import Behind, Found, look_at
from sidelight.exceptions import SpoolError
from sidelight.settings import settle
from sidelight.spool import PAGE, Entry, Quarantine, filesystem

_LATEST: Final = 20  # entries of the quarantine that are shown beside the segments

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
    """Show the spool: its segments, whose they are, what each sink lacks, and what was set aside.

    It takes nobody's lock and changes nothing; processes may write and relays deliver meanwhile. A
    segment is given by the second part of its file's name.

    Examples:
      sidelight spool

      sidelight spool --json | jq 'select(.kind == "segment" and .alive == false)'
    """
    if context.invoked_subcommand is not None:
        if any(_is_given(context, name) for name in context.params):
            context.fail(f"write the options behind `{context.invoked_subcommand}`")
        return
    where = settle(store, spool=directory).spool
    if not where.is_dir():
        raise SpoolError(
            directory=where,
            problem="it is not there",
            remedy="nothing was emitted yet, or name another with --spool or SIDELIGHT_SPOOL",
        )
    try:
        found = look_at(where)
        entries = [*Quarantine(where).entries()]
    except OSError as error:
        raise SpoolError(directory=where, problem=error.strerror, remedy="ask its owner") from error
    if as_json:
        print_json(_plain(where, found, entries))
    else:
        _print(where, found, entries)


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _print(
    where: Path, found: Sequence[Found], entries: Sequence[tuple[str, Entry | None]]
) -> None:
    out = console()
    out.print(Text(clean(_headline(where, found))))
    if found:
        sinks = list(dict.fromkeys(sink for each in found for sink in each.sinks))
        rows = table("segment", "writer", "size", "full", "age", *sinks, right=["size", "full"])
        for each in found:
            rows.add_row(
                each.path.stem.rpartition("-")[2],
                _writer(each),
                size(each.size),
                f"{(each.end - PAGE) / max(1, each.size - PAGE):.0%}",
                _age(each),
                *(_behind(each.behind.get(sink)) for sink in sinks),
            )
        out.print(rows)
    for each in found:
        if each.damaged and not each.written:
            name = each.path.stem.rpartition("-")[2]
            out.print(Text(f"{size(each.damaged)} of {name} are no records", style="red"))
    if entries:
        out.print(Text(f"\nset aside: {plural(len(entries), 'entry', 'entries')}"))
        out.print(table_of(entries[-_LATEST:]))
        remark(
            "`sidelight spool quarantined` shows all of them, "
            "`sidelight spool replay` delivers them again"
        )


def _headline(where: Path, found: Sequence[Found]) -> str:
    kind = filesystem(where)
    held = sum(each.size for each in found)
    limit = _limit(found)
    holds = f"{plural(len(found), 'segment')}, {size(held)}" if found else "empty"
    of = f" of {size(limit)} allowed" if limit and found else ""
    return f"{where}{f' on {kind}' if kind else ''}: {holds}{of}"


def _limit(found: Sequence[Found]) -> int | None:
    limits = [each.meta["limit"] for each in found if isinstance(each.meta.get("limit"), int)]
    return min(limits, default=None)


def _writer(each: Found) -> Text:
    told = Text(clean(each.writer))
    if each.host is not None:
        told.append(clean(f" on {each.host}"), style="dim")
    state, style = _state(each)
    return told.append(f" {state}", style=style)


def _state(each: Found) -> tuple[str, str]:
    """Whether its writer lives and who delivers it, in words and a colour."""
    if each.written:
        state = "alive" if each.end > PAGE else "alive, spare"
        if each.meta.get("relay") == "external" and each.end > PAGE:
            state += ", a relay reads it" if each.attended else ", no relay reads it"
        return state, "green"
    state = "alive, has left it" if each.alive else "ended"
    return (f"{state}, a relay delivers it", "green") if each.attended else (state, "yellow")


def _age(each: Found) -> str:
    if each.created_ns is None:
        return ""
    age = (time.time_ns() - each.created_ns) // 10**9
    return duration(age * 10**9) if age >= 0 else f"in {duration(-age * 10**9)}"


def _behind(behind: Behind | None) -> Text:
    if behind is None:
        return named(None)
    if not behind.records:
        return Text("✓", style="dim")
    told = f"{number(behind.records)} ({size(behind.bytes)})"
    return Text(told if behind.oldest_ns is None else f"{told}, {duration(behind.age_ns)} old")


def _plain(
    where: Path, found: Sequence[Found], entries: Sequence[tuple[str, Entry | None]]
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
            "behind": {sink: _plain_behind(behind) for sink, behind in each.behind.items()},
            "damaged": each.damaged,
        }
    for identity, entry in entries:
        yield {"kind": "quarantined", **plain_entry(identity, entry)}


def _plain_behind(behind: Behind) -> dict[str, Any]:
    return {
        "records": behind.records,
        "bytes": behind.bytes,
        "oldest_at": time_of(behind.oldest_ns),
    }
