"""`sidelight prune`: delete what occurred long ago."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sidelight.cli.options import AsJson, StoreUrl
from sidelight.cli.output import complain, console, number, plural, print_json, remark, size, table
from sidelight.store import Plan, Pruner

_SHOWN_AFTER: Final = 1.0  # seconds
_WORTH_A_WORD: Final = 10_000_000  # bytes


def prune(
    *,
    older_than: Annotated[
        str,
        typer.Option(
            "--older-than",
            metavar="TIME",
            help="Delete what occurred on days (UTC) before: 365d, 52w (ago), or 2026-07-25.",
        ),
    ],
    counts: Annotated[
        bool,
        typer.Option("--counts", help="Delete the counters of those days, too."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would go; change nothing.")
    ] = False,
    store: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Delete events that occurred long ago, and artifacts to which nothing happened since.

    It works in short transactions beside relays. The store remembers from when on it keeps events:
    one that is delivered late, or again, does not come back. Counters of the days that go are kept
    as history, unless --counts says otherwise.

    Ctrl-C ends it at any time; the same command goes on where it was.

    Examples:
      sidelight prune --older-than 365d --dry-run

      sidelight prune --older-than 365d --store postgresql://host/database
    """
    with Pruner(store, dry=dry_run) as pruner:
        plan = pruner.plan(older_than)
        if not dry_run:
            try:
                _show_progress(pruner.run(plan, counts=counts), plan.events + plan.artifacts)
            except KeyboardInterrupt:
                complain("stopped in the middle; the same command goes on where it was")
                raise typer.Exit(1) from None
        _tell(plan, pruner.url, as_json=as_json, dry_run=dry_run)
        if (unused := pruner.unused_bytes()) > _WORTH_A_WORD and not as_json:
            remark(f"{size(unused)} of the file wait for new events; a VACUUM would give them back")


def _show_progress(steps: Iterable[int], total: int) -> None:
    """Go through the steps, with a bar on a terminal where that takes a while."""
    out = Console(stderr=True)
    bar = Progress(
        TextColumn("pruning"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=out,
        transient=True,
        disable=not out.is_terminal,
    )
    task = bar.add_task("", total=total)
    begun = time.monotonic()
    try:
        for count in steps:
            bar.advance(task, count)
            if not bar.live.is_started and time.monotonic() - begun > _SHOWN_AFTER:
                bar.start()
    finally:
        bar.stop()


def _tell(plan: Plan, url: str, *, as_json: bool, dry_run: bool) -> None:
    if as_json:
        print_json([{**_plain(plan), "dry_run": dry_run}])
        return
    rows = table("would go" if dry_run else "gone", "", right=[""])
    rows.add_row("events", number(plan.events))
    rows.add_row("artifacts", number(plan.artifacts))
    console().print(rows)
    if plan.partitions:
        remark(f"with {plural(len(plan.partitions), 'partition')}: {', '.join(plan.partitions)}")
    would = "would then keep" if dry_run else "keeps"
    remark(f"{url} {would} what occurred since {plan.kept_since} (UTC)")


def _plain(plan: Plan) -> dict[str, Any]:
    return {
        "kept_since": plan.kept_since,
        "events": plan.events,
        "artifacts": plan.artifacts,
        "partitions": plan.partitions,
    }
