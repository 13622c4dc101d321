"""The command line: ``python -m benchmarks [--smoke | --budget] [--readme]``."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Final

from rich.console import Console

from benchmarks import budget, machine
from benchmarks.host_work import host_work
from benchmarks.import_time import import_time
from benchmarks.relay_speed import RelaySpeed, relay_speed
from benchmarks.report import (
    DIRECTORY,
    IN_README,
    README,
    Findings,
    into_readme,
    save,
    show,
)
from benchmarks.scenarios import PAUSING, TIGHT, Effort, run
from benchmarks.whole_cost import whole_cost

_TELL_EVERY: Final = 10.0  # seconds


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, report, and answer 1 where the budget is broken."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="What sidelight costs its caller, beside a floor, its peers and a control.",
    )
    parser.add_argument("--smoke", action="store_true", help="only the budget, in seconds")
    parser.add_argument("--budget", action="store_true", help="only the budget, in full")
    parser.add_argument("--rounds", type=int, help="rounds in the tight loop (20; for README 10)")
    parser.add_argument("--report", type=Path, default=DIRECTORY, help="directory of the report")
    parser.add_argument(
        "--readme",
        action="store_true",
        help="only the tables of README.md, in two to four minutes",
    )
    options = parser.parse_args(arguments)
    if options.readme + options.smoke + options.budget > 1:
        parser.error("--readme, --smoke and --budget measure different things: name one")
    console = Console() if sys.stdout.isatty() else Console(width=160)
    begun = time.monotonic()
    facts = machine.facts()
    with console.status("") as status:
        tell = status.update if console.is_terminal else _Log(console)
        if options.readme:
            matrix = run(Effort(rounds=options.rounds or 10), tell, (TIGHT, PAUSING), IN_README)
            findings = Findings(facts, (), matrix, whole=whole_cost(tell))
            return _into_readme(findings, console)
        findings = Findings(facts, ())
        if not (options.smoke or options.budget):
            tell("import times")
            imports = import_time()
            tell("relay")
            relay = _apart(relay_speed)
            whole, host = whole_cost(tell), host_work(tell)
            matrix = run(Effort(rounds=options.rounds or 20), tell)
            findings = Findings(facts, (), matrix, imports, relay, whole, host)
        checks = budget.smoke() if options.smoke else budget.full()
        verdicts = list(budget.judge(checks, tell))
        findings = replace(findings, verdicts=verdicts)
    facts["load at the end"] = machine.load()
    facts["minutes"] = round((time.monotonic() - begun) / 60, 1)
    show(findings, console)
    for path in [] if options.smoke else save(findings, options.report):
        console.print(f"saved {path}", style="dim", soft_wrap=True)
    return _answer(verdicts, console, careful=options.smoke)


def _into_readme(findings: Findings, console: Console) -> int:
    show(findings, console)
    into_readme(findings)
    console.print(f"the tables are in {README}", style="dim", soft_wrap=True)
    return 0


def _answer(verdicts: Sequence[budget.Verdict], console: Console, *, careful: bool) -> int:
    """Return whether to fail a run in CI: only excess that chance does not explain counts."""
    broken = [v for v in verdicts if (v.surely_broken if careful else v.broken)]
    for verdict in broken:
        console.print(f"budget broken: {verdict.check}", style="bold red", soft_wrap=True)
    return 1 if broken else 0


class _Log:
    """Print the progress into a log, a line for each stage and every ten seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._stage = ""
        self._begun = self._told = time.monotonic()

    def __call__(self, doing: str) -> None:
        stage, now = doing.partition(":")[0], time.monotonic()
        if stage != self._stage or now - self._told > _TELL_EVERY:
            self._stage, self._told = stage, now
            self._console.print(f"{now - self._begun:4.0f} s: {doing} …", style="dim")


def _apart(function: Callable[[], RelaySpeed]) -> RelaySpeed:
    """Call it in a separate process."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function).result()
