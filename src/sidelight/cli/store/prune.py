"""`sidelight prune`: delete old events."""

from __future__ import annotations

from typing import Annotated, Final

import typer
from rich.text import Text

from sidelight.cli.options import AsJson, StoreUrl
from sidelight.cli.output import complain, print_json, remark, with_progress
from sidelight.cli.tables import print_table
from sidelight.store import Plan, Pruner, number, plural, size

_WORTH_A_VACUUM: Final = 10_000_000  # bytes


def prune(
    *,
    older_than: Annotated[
        str | None,
        typer.Option(
            "--older-than",
            metavar="TIME",
            help="Delete events of days (UTC) before this: 365d, 52w (ago), or 2026-07-25.",
        ),
    ] = None,
    keep_since: Annotated[
        str | None,
        typer.Option(
            "--keep-since",
            metavar="TIME",
            help="Delete nothing; let relays store events from this day (UTC) on again.",
        ),
    ] = None,
    trust_clock: Annotated[
        bool,
        typer.Option(
            "--trust-clock", help="The clock is right, although the newest event is much older."
        ),
    ] = False,
    counts: Annotated[
        bool, typer.Option("--counts", help="Delete the counters of those days too.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be deleted; delete nothing.")
    ] = False,
    store: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Delete old events, and artifacts that have no later event.

    The command works in short transactions beside relays. The store remembers the first day that it
    keeps: an older event that arrives later, or once more, is not stored but goes to the
    quarantine. Counters of deleted days stay as history, unless --counts is given.

    An age counts from the newest event where the clock is far ahead of it, because a wrong clock
    must not delete events. After a pruning by mistake, --keep-since takes the day back; then
    `sidelight spool replay` delivers the events that were refused meanwhile.

    Ctrl-C ends the command at any time; the same command continues.

    Examples:
      sidelight prune --older-than 365d --dry-run

      sidelight prune --older-than 365d --store postgresql://host/database
    """
    if (older_than is None) is (keep_since is None):
        raise typer.BadParameter("give either --older-than or --keep-since")
    if keep_since is not None:
        with Pruner(store) as pruner:
            remark(f"{pruner.url} keeps events since {pruner.take_back(keep_since)} (UTC)")
        return
    with Pruner(store, dry=dry_run) as pruner:
        plan = pruner.plan(older_than or "", trust_clock=trust_clock)
        if not dry_run:
            steps = pruner.run(plan, counts=counts)
            try:
                for _ in with_progress(steps, "pruning", plan.events + plan.artifacts, int):
                    pass
            except KeyboardInterrupt:
                complain("interrupted; the same command continues")
                raise typer.Exit(1) from None
        _print(plan, pruner.url, as_json=as_json, dry_run=dry_run)
        if (unused := pruner.unused_bytes()) > _WORTH_A_VACUUM and not as_json:
            remark(f"{size(unused)} of the file are free for new events; VACUUM would shrink it")


def _print(plan: Plan, url: str, *, as_json: bool, dry_run: bool) -> None:
    if as_json:
        plain = {
            "kept_since": plan.kept_since,
            "events": plan.events,
            "artifacts": plan.artifacts,
            "partitions": plan.partitions,
            "counted_from": plan.counted_from,
            "dry_run": dry_run,
        }
        print_json([plain])
        return
    columns = {
        "would be deleted" if dry_run else "deleted": [Text("events"), Text("artifacts")],
        "": [Text(number(plan.events)), Text(number(plan.artifacts))],
    }
    print_table(columns, right=[""])
    if plan.partitions:
        remark(f"with {plural(len(plan.partitions), 'partition')}: {', '.join(plan.partitions)}")
    if plan.counted_from is not None:
        remark(
            f"the newest event occurred at {plan.counted_from:%Y-%m-%d %H:%M} UTC: the age counts"
            " from then; if the clock is right, add --trust-clock"
        )
    keeps = "would then keep" if dry_run else "keeps"
    remark(f"{url} {keeps} events since {plan.kept_since} (UTC)")
