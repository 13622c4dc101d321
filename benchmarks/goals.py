"""The goals of sidelight beside the measurements. Only the budget fails a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks import ours
from benchmarks.budget import Verdict
from benchmarks.floor import FLOOR
from benchmarks.import_time import ImportTime
from benchmarks.peers import SPAN
from benchmarks.relay_speed import RelaySpeed
from benchmarks.scenarios import BESIDE_THREE, PAUSING, TIGHT, Matrix
from benchmarks.stats import Measured
from benchmarks.whole_cost import SDK, STORE_AND_OTLP, WholeCost

_SCHEDULED = f"{ours.title('scheduled')}, relay idle"
_AWAITED = f"{ours.title('awaited')}, relay idle"


@dataclass(frozen=True, slots=True)
class Goal:
    """One aim, and how far it was reached."""

    what: str
    aim: str
    reached: str
    verdict: str


def goals(
    matrix: Matrix,
    verdicts: Sequence[Verdict],
    imports: ImportTime,
    relay: RelaySpeed,
    whole: WholeCost,
) -> list[Goal]:
    """All of them."""
    tight = matrix.cells[TIGHT]
    slow = matrix.cells[PAUSING]
    scheduled = tight[_SCHEDULED]
    found = [
        _most(
            "scheduled, event and span: p50 ÷ SDK span", scheduled.ratio_to(tight[SPAN]), 0.15, 0.20
        ),
        _most(
            "scheduled, event and span: p50 ÷ floor", scheduled.ratio_to(tight[FLOOR]), 1.05, 1.25
        ),
        _awaited("awaited, stored in SQLite: p50, tight loop (ms)", tight[_AWAITED]),
        _awaited("awaited, stored in SQLite: p50, pausing (ms)", slow[_AWAITED]),
        _most("import ÷ import of opentelemetry.trace", imports.ratio, 1.3),
    ]
    cpu = {subject: cost.cpu for subject, cost in whole.costs.items()}
    found.append(
        _most(
            "CPU of all threads, SQLite and OTLP ÷ SDK span",
            cpu[STORE_AND_OTLP] / cpu[SDK],
            0.5,
            0.7,
        )
    )
    for verdict in verdicts:
        check = verdict.check
        if check.condition == BESIDE_THREE and check.store == "working":
            mine, control = verdict.emissions.p999, verdict.control.p999
            if mine is not None and control is not None:
                what = "pausing beside 3 CPU-bound threads: p99.9 above control (ms)"
                found.append(_most(what, (mine - control) / 1e3, 0.3))
    speed = relay.per_second
    reached = "reached" if speed >= 50_000 else "missed"
    found.append(Goal("relay into SQLite (events/s)", "≥ 50,000", f"{speed:,.0f}", reached))
    return found


def _awaited(what: str, measured: Measured) -> Goal:
    """Quick answers that were not stored do not count."""
    stored = measured.stored() or 0.0
    if stored < 0.95:
        return Goal(what, "0.30", "—", f"missed: {stored:.0%} stored")
    return _most(what, measured.summary().p50 / 1e3, 0.3)


def _most(what: str, value: float, aim: float, least: float | None = None) -> Goal:
    verdict = "reached" if value <= aim else "missed"
    if least is not None and aim < value <= least:
        verdict = f"the least ({least:.2f}) reached"
    return Goal(what, f"{aim:.2f}", f"{value:.3f}", verdict)
