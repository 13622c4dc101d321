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

from rich.console import Console

from benchmarks import budget, machine
from benchmarks.host_work import host_work
from benchmarks.import_time import import_time
from benchmarks.relay_speed import RelaySpeed, relay_speed
from benchmarks.report import DIRECTORY, Findings, into_readme, save, show
from benchmarks.scenarios import Effort, run
from benchmarks.whole_cost import whole_cost


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, report, and answer 1 where the budget is broken."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="What sidelight costs its caller, beside a floor, its peers and a control.",
    )
    parser.add_argument("--smoke", action="store_true", help="only the budget, in seconds")
    parser.add_argument("--budget", action="store_true", help="only the budget, in full")
    parser.add_argument("--rounds", type=int, default=20, help="rounds in the tight loop (20)")
    parser.add_argument("--report", type=Path, default=DIRECTORY, help="directory of the report")
    parser.add_argument("--readme", action="store_true", help="put the tables into README.md")
    options = parser.parse_args(arguments)
    if options.readme and (options.smoke or options.budget):
        parser.error("--readme needs a whole run")
    console = Console() if sys.stdout.isatty() else Console(width=160)
    begun = time.monotonic()
    facts = machine.facts()
    with console.status("") as status:
        tell = status.update if console.is_terminal else _Log(console)
        findings = Findings(facts, ())
        if not (options.smoke or options.budget):
            tell("import times")
            imports = import_time()
            tell("relay")
            relay = _apart(relay_speed)
            tell("whole cost")
            whole = whole_cost()
            tell("the host's work")
            host = host_work()
            matrix = run(Effort(rounds=options.rounds), tell)
            findings = Findings(facts, (), matrix, imports, relay, whole, host)
        checks = budget.smoke() if options.smoke else budget.full()
        verdicts = list(budget.judge(checks, tell))
        findings = replace(findings, verdicts=verdicts)
    facts["load at the end"] = machine.load()
    facts["minutes"] = round((time.monotonic() - begun) / 60, 1)
    show(findings, console)
    for path in [] if options.smoke else save(findings, options.report):
        console.print(f"saved {path}", style="dim", soft_wrap=True)
    if options.readme:
        into_readme(findings)
    return _answer(verdicts, console, careful=options.smoke)


def _answer(verdicts: Sequence[budget.Verdict], console: Console, *, careful: bool) -> int:
    """Return whether to fail a run in CI: only excess that chance does not explain counts."""
    broken = [v for v in verdicts if (v.surely_broken if careful else v.broken)]
    for verdict in broken:
        console.print(f"budget broken: {verdict.check}", style="bold red", soft_wrap=True)
    return 1 if broken else 0


class _Log:
    """Print the progress into a log, one line for each stage, where there is no terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._stage = ""

    def __call__(self, doing: str) -> None:
        stage = doing.partition(":")[0]
        if stage != self._stage:
            self._stage = stage
            self._console.print(f"measuring {stage} …", style="dim")


def _apart(function: Callable[[], RelaySpeed]) -> RelaySpeed:
    """Call it in a separate process."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function).result()
