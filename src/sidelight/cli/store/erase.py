"""`sidelight erase`: delete an artifact or an organization for good."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import typer
from rich.text import Text

from sidelight.cli.options import AsJson, Outboxes, SpoolDirectory, StoreUrl
from sidelight.cli.output import (
    complain,
    print_json,
    remark,
    with_progress,
)
from sidelight.cli.spool.commands import located
from sidelight.cli.spool.erase import Local, chooser, erase_here
from sidelight.cli.spool.segments import require_named
from sidelight.cli.spool.waiting import missing_beside_spool, waiting_in
from sidelight.cli.tables import print_table
from sidelight.exceptions import OutboxError, StoreMissingError
from sidelight.record import alike, visible
from sidelight.settings import Settings, settle
from sidelight.store import Eraser, Erasure, Store, id_text, number, plural
from sidelight.transactions import erase_from_outbox

_ELSEWHERE: Final = (
    "spans and log records that the Collector has, and what is behind it",
    "messages in Kafka, until their retention is over; consumers drop them",
    "backups, exports and other copies of the store",
    "spools and outboxes elsewhere, until their relays deliver; the store drops the events then",
    "copies of hot segments on the disk, until their relays deliver",
    "quarantines elsewhere: run the command there too",
)


_LATEST: Final = 1000  # artifacts among which one with a similar id is searched


@dataclass(slots=True)
class Receipt:
    """What an erasure has deleted, and what it cannot reach.

    Attributes:
        events, artifacts: in the store.
        local: on this machine.
        outboxes: rows of outboxes.
        problems: why the erasure is not complete.
        not_reached: in words.
    """

    plan: Erasure
    events: int = 0
    local: Local = field(default_factory=Local)
    outboxes: int = 0
    problems: list[str] = field(default_factory=list)
    not_reached: list[str] = field(default_factory=list)


def erase(
    *,
    artifact: Annotated[
        str | None, typer.Option("--artifact", metavar="ID", help="Erase this artifact.")
    ] = None,
    organization: Annotated[
        str | None,
        typer.Option(
            "--organization",
            metavar="ID",
            help="Erase this organization. With --artifact: erase only the artifact's events of "
            'this organization; "" means those without one.',
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what the store has; write nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    lift: Annotated[
        bool, typer.Option("--lift", help="Delete nothing; let relays store its events again.")
    ] = False,
    store: StoreUrl = None,
    spool: SpoolDirectory = None,
    outboxes: Outboxes = None,
    as_json: AsJson = False,
) -> None:
    """Delete an artifact or an organization for good, also what arrives later.

    Events, artifacts and counters go from the store, and records from the spool, the quarantine and
    the outboxes. The command works in short transactions beside relays. The store keeps a digest of
    the id; relays drop later events that belong to it, and count each as the loss "erased".

    The command prints a receipt, which names what it cannot reach. The exit code is 1 where the
    erasure is not complete. Ctrl-C ends the command at any time; the same command continues.

    Examples:
      sidelight erase --artifact note-7 --dry-run

      sidelight erase --organization northwind --yes --json
    """
    require_named(spool)
    settings = settle(store, spool=spool, outboxes=outboxes)
    try:
        opened = Eraser(settings.require_store(), dry=dry_run)
    except StoreMissingError as error:
        raise missing_beside_spool(error, spool) from error
    with opened as eraser:
        plan = eraser.plan(artifact_id=artifact, organization_id=organization)
        if lift:
            _lift(eraser, plan, dry_run=dry_run, as_json=as_json)
            return
        if not plan.events and eraser.is_erased(plan.subject):
            remark(f"{_named(plan)} was erased before, and the store holds nothing new of it")
        elif not plan.events:
            _remark_unknown(plan, settings)
        receipt = Receipt(plan)
        if not dry_run:
            if not yes:
                _ask(plan, eraser.url)
            try:
                _erase(eraser, settings, receipt)
            except KeyboardInterrupt:
                complain("interrupted; the same command continues")
                raise typer.Exit(1) from None
    _print(receipt, as_json=as_json, dry_run=dry_run)
    if receipt.problems:
        raise typer.Exit(1)


def _lift(eraser: Eraser, plan: Erasure, *, dry_run: bool, as_json: bool) -> None:
    lifted = eraser.is_erased(plan.subject) if dry_run else eraser.lift(plan.subject)
    if as_json:
        subject = {"artifact_id": plan.artifact_id, "organization_id": plan.organization_id}
        print_json([{**subject, "dry_run": dry_run, "lifted": lifted}])
    elif lifted:
        do = "would store" if dry_run else "store"
        remark(f"{_named(plan)}: relays {do} its events again")
    else:
        remark(f"{_named(plan)} was not erased")


def _remark_unknown(plan: Erasure, settings: Settings) -> None:
    """Tell that neither the store nor the spool has an event of the subject: it may be misspelt."""
    name = plan.organization_id if plan.artifact_id is None else plan.artifact_id
    kind = "organization_id" if plan.artifact_id is None else "artifact_id"
    url = settings.require_store()
    with contextlib.suppress(OSError):  # the receipt names a spool that cannot be read
        waiting = (getattr(each, kind) for each in waiting_in(settings.spool, url))
        if any(each is not None and id_text(each) == name for each in waiting):
            return
    with Store(url) as store:
        known = {getattr(each, kind) for each in store.artifacts(limit=_LATEST)} - {None}
    close = alike(name or "", known)
    meant = f"; did you mean {close}?" if close else "; an erasure drops those that come later"
    remark(f"neither the store nor the spool here has an event of {_named(plan)}{meant}")


def _ask(plan: Erasure, url: str) -> None:
    """Ask whether to erase.

    Raises:
        typer.Exit: there is nobody to ask.
        typer.Abort: the answer is no.
    """
    question = f"Erase {_named(plan)}, with {plural(plan.events, 'event')}, from {url} for good?"
    if not sys.stdin.isatty():
        complain(f"{question} Add --yes, or look first with --dry-run")
        raise typer.Exit(2)
    typer.confirm(question, abort=True, err=True)


def _named(plan: Erasure) -> str:
    names = []
    if plan.artifact_id is not None:
        names.append(f"artifact {visible(plan.artifact_id)}")
    if plan.organization_id is not None:
        owner = visible(plan.organization_id) if plan.organization_id else "(none)"
        names.append(f"organization {owner}")
    return " of ".join(names)


def _erase(eraser: Eraser, settings: Settings, receipt: Receipt) -> None:
    plan, unreadable = receipt.plan, set[bytes]()
    for count in with_progress(eraser.run(plan), "erasing", plan.events, int):
        receipt.events += count
    choose = chooser(eraser, unreadable)
    for url in settings.outboxes:  # first: a relay may be moving rows into the spool
        try:
            receipt.outboxes += erase_from_outbox(url, choose)
        except OutboxError as error:
            receipt.problems.append(str(error))
    try:
        for receipt.local in erase_here(settings.spool, settings.require_store(), choose):
            pass
    except OSError as error:
        receipt.problems.append(f"{settings.spool} cannot be read: {error.strerror}")
    receipt.problems += _incomplete(receipt.local)
    if unreadable:
        receipt.problems.append(
            f"{plural(len(unreadable), 'record')} of the spool, the quarantine or the outboxes"
            " cannot be read, and may be of the subject; see `sidelight spool`"
        )
    places = settings.spool, settings.named_store
    receipt.problems = [located(each, *places) for each in receipt.problems]
    receipt.not_reached = [*eraser.remainder(), *_ELSEWHERE]


def _incomplete(local: Local) -> list[str]:
    problems = []
    if local.waiting:
        wait = "waits" if local.waiting == 1 else "wait"
        problems.append(
            f"{plural(local.waiting, 'record')} in the spool {wait} for a sink that does not"
            " answer; the store drops them, but their bytes stay: run the command again"
        )
    if local.unreadable:
        what = plural(local.unreadable, "file")
        problems.append(f"{what} of the spool cannot be read or written; see `sidelight spool`")
    return problems


def _print(receipt: Receipt, *, as_json: bool, dry_run: bool) -> None:
    if as_json:
        print_json([_plain(receipt, dry_run=dry_run)])
    else:
        counted = _counts(receipt, dry_run=dry_run)
        columns = {
            "would be erased" if dry_run else "erased": [Text(name) for name, _ in counted],
            "": [Text(number(count)) for _, count in counted],
        }
        print_table(columns, right=[""])
    for problem in receipt.problems:
        complain(problem)
    if not (as_json or dry_run):
        remark(f"{_named(receipt.plan)}: later events are dropped. Not reached:")
        for each in receipt.not_reached:
            remark(f"- {each}")


def _counts(receipt: Receipt, *, dry_run: bool) -> Sequence[tuple[str, int]]:
    plan, local = receipt.plan, receipt.local
    in_store = [
        ("events", plan.events if dry_run else receipt.events),
        ("artifacts", plan.artifacts),
    ]
    if dry_run:
        return in_store
    return [
        *in_store,
        ("records in the spool", local.spool),
        ("records in quarantine", local.quarantine),
        ("rows in outboxes", receipt.outboxes),
    ]


def _plain(receipt: Receipt, *, dry_run: bool) -> dict[str, Any]:
    plan, local = receipt.plan, receipt.local
    return {
        "artifact_id": plan.artifact_id,
        "organization_id": plan.organization_id,
        "dry_run": dry_run,
        "events": plan.events if dry_run else receipt.events,
        "artifacts": plan.artifacts,
        "spool": local.spool,
        "waiting": local.waiting,
        "quarantine": local.quarantine,
        "outboxes": receipt.outboxes,
        "complete": not (receipt.problems or dry_run),
        "problems": receipt.problems,
        "not_reached": receipt.not_reached,
    }
