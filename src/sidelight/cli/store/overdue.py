"""`sidelight overdue`: artifacts for which an expected event did not come."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Annotated, Final

import requests
import typer
from rich.text import Text

from sidelight.cli.options import AsJson, OfOrganization, StoreUrl, TimeLimit, Where, seconds_of
from sidelight.cli.output import (
    clean,
    complain,
    json_line,
    named,
    print_json,
    remark,
    remark_left_out,
)
from sidelight.cli.palette import AMBER, GREY, RED
from sidelight.cli.spool.waiting import marks_here
from sidelight.cli.store.expected import ExpectMap, ExpectModules, expectations_of
from sidelight.cli.store.latency import remark_large
from sidelight.cli.tables import print_table
from sidelight.store import (
    Judgement,
    Overdue,
    Store,
    duration,
    moment,
    plural,
    whole_seconds,
)

_UNKNOWN: Final = 3  # exit code: nothing is overdue, but something is unknown
_FIRST_PAUSE: Final = 1.0  # s; doubles with each failed attempt to tell
_LONGEST_PAUSE: Final = 60.0
_ANSWER_WITHIN: Final = 30.0  # s that a command or a webhook may take


def overdue(
    *,
    store: StoreUrl = None,
    map_: ExpectMap = None,
    modules: ExpectModules = None,
    since: Annotated[
        str,
        typer.Option(metavar="TIME", help="Examine artifacts whose wait began at or after this."),
    ] = "7d",
    organization: OfOrganization = None,
    where: Where = None,
    without: Annotated[
        list[str] | None,
        typer.Option(
            "--without",
            metavar="PROCESS",
            help="Expect nothing more from this process (its instance id). Repeatable.",
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on until Ctrl-C, and tell each overdue once.")
    ] = False,
    command: Annotated[
        str | None,
        typer.Option(
            "--command",
            metavar="COMMAND",
            help="With --follow: run this for each overdue, with the overdue as JSON on stdin.",
        ),
    ] = None,
    webhook: Annotated[
        str | None,
        typer.Option(
            "--webhook", metavar="URL", help="With --follow: POST each overdue there as JSON."
        ),
    ] = None,
    every: Annotated[
        float, typer.Option("--every", metavar="SECONDS", min=0.1, help="Look so often.")
    ] = 10.0,
    time_limit: TimeLimit = None,
    as_json: AsJson = False,
) -> None:
    """List artifacts for which an expected event did not come in time.

    A map (or catalogue.expect in code) says what is expected: after an event of one type, one of
    others within a time. The command judges only what processes have delivered. Where a process is
    silent or its delivery is behind, the answer is "unknown", with the reason.

    Exit codes: 1 something is overdue; 3 nothing is overdue, but something is unknown.

    Examples:
      sidelight overdue

      sidelight overdue --follow --webhook https://example.com/alerts
    """
    expectations = expectations_of(map_, modules or [])
    if not expectations:
        complain(
            "nothing is expected; write [[expect]] into sidelight.toml (or --map FILE), or name a"
            " module that calls catalogue.expect: --catalogue MODULE"
        )
        raise typer.Exit(2)
    with Store(store) as opened:

        def look() -> Judgement:
            return opened.overdue(
                expectations,
                since=since,
                organization_id=organization,
                where=where or None,
                without=without or (),
                waiting=marks_here(store),
                time_limit=seconds_of(time_limit, as_json=as_json or follow),
            )

        if follow:
            try:
                _follow(look, _Alert(command, webhook), every)
            except KeyboardInterrupt:
                return
        found = look()
    _print(found, as_json=as_json)
    if any(each.state == "overdue" for each in found):
        raise typer.Exit(1)
    if found:
        raise typer.Exit(_UNKNOWN)


def _print(found: Judgement, *, as_json: bool) -> None:
    if as_json:
        print_json(found)
    elif found:
        columns = {
            "": [
                Text("✗", style=RED) if each.state == "overdue" else Text("?", style=AMBER)
                for each in found
            ],
            "artifact": [named(each.artifact_id) for each in found],
            "organization": [named(each.organization_id) for each in found],
            "waits for": [Text(clean(" or ".join(each.one_of))) for each in found],
            "since (UTC)": [Text(moment(each.since)) for each in found],
            "late": [Text(whole_seconds(each.late_ns), style=RED) for each in found],
            "last event": [_last(each) for each in found],
        }
        print_table(columns, right=["late"], lead=["", "artifact", "organization"])
    number = sum(each.state == "overdue" for each in found)
    if not as_json:
        remark(f"{plural(number, 'artifact')} overdue")
        if unknown := len(found) - number:
            remark(f"{plural(unknown, 'artifact')} unknown:")
    for reason in found.unknown:
        complain(f"unknown: {reason}")
    remark_left_out("artifacts that began", found.left_out)
    remark_large(found.large)


def _last(each: Overdue) -> Text:
    text = Text(clean(each.last_type))
    if each.last_outcome == "abandoned":
        text.append(" abandoned", style=RED)
    return text.append(f" after {duration(_ns_between(each))}", style=GREY)


def _ns_between(each: Overdue) -> int:
    return round((each.last_at - each.since).total_seconds() * 1e9)


# -- alerts ------------------------------------------------------------------------------------


class _Alert:
    """Tells of one overdue: to a command, to a webhook, and on stdout."""

    def __init__(self, command: str | None, webhook: str | None) -> None:
        self._command = command
        self._webhook = webhook

    def tell(self, line: str) -> str:
        """Tell; return the problem, or ""."""
        if self._command is not None:
            try:
                subprocess.run(  # noqa: S602  # the user's own command
                    self._command,
                    shell=True,
                    input=line,
                    text=True,
                    timeout=_ANSWER_WITHIN,
                    check=True,
                )
            except (subprocess.SubprocessError, OSError) as error:
                return f"the command failed: {error}"
        if self._webhook is not None:
            try:
                requests.post(
                    self._webhook,
                    data=line.encode(),
                    headers={"content-type": "application/json"},
                    timeout=_ANSWER_WITHIN,
                    allow_redirects=False,
                ).raise_for_status()
            except requests.RequestException as error:
                return f"the webhook failed: {type(error).__name__}"
        sys.stdout.write(line)
        sys.stdout.flush()
        return ""


def _follow(look: Callable[[], Judgement], alert: _Alert, every: float) -> None:
    """Tell each overdue once; retry what could not be told. Ends by an interrupt only."""
    told: set[tuple[str, str, tuple[str, ...]]] = set()
    reasons: list[str] = []
    pause = _FIRST_PAUSE
    while True:
        found = look()
        if found.unknown != reasons:
            reasons = found.unknown
            for reason in reasons:
                complain(f"unknown: {reason}")
        problem = ""
        for each in (each for each in found if each.state == "overdue"):
            key = (each.artifact_id, each.after, each.one_of)
            if key not in told and not problem:
                problem = alert.tell(json_line(each))
                if not problem:
                    told.add(key)
        told &= {(each.artifact_id, each.after, each.one_of) for each in found}
        if problem:
            complain(f"{problem}; trying again in {pause:g} s")
        time.sleep(min(pause, _LONGEST_PAUSE) if problem else every)
        pause = min(2 * pause, _LONGEST_PAUSE) if problem else _FIRST_PAUSE
