"""The histograms: each call beside its control, on one logarithmic axis of time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.scenarios import BESIDE_THREE, REFERENCES, TIGHT, Condition, Matrix
from benchmarks.stats import BUDGET_NS

_OURS, _THEIRS, _CONTROL, _BUDGET = "#0b6e99", "#8a5a00", "#b8b8b8", "#b00020"
_BINS_PER_DECADE: Final = 20
_DECADES: Final = (-1.3, 5.7)  # of microseconds: 50 ns to half a second


def draw(matrix: Matrix, directory: Path) -> list[Path]:
    """Draw the two conditions that say most; SVG for documents, PNG for everything else."""
    try:
        import matplotlib  # noqa: PLC0415  # in the bench extra
    except ImportError:
        return []
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415

    conditions = (TIGHT, BESIDE_THREE)
    titles = _titles(matrix, conditions)
    figure, axes = plt.subplots(
        len(titles),
        len(conditions),
        figsize=(12, 0.62 * len(titles) + 1.4),
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    for column, condition in enumerate(conditions):
        for axis, title in zip(axes[:, column], titles, strict=True):
            measured = matrix.cells[condition][title]
            colour = _OURS if title.startswith("sidelight") else _THEIRS
            _histogram(axis, (v for s in measured.rounds for v in s.control), _CONTROL)
            _histogram(axis, (v for s in measured.rounds for v in s.calls), colour)
            median = measured.summary().p50
            axis.axvline(median, color=colour, linewidth=1)
            axis.axvline(BUDGET_NS / 1e3, color=_BUDGET, linewidth=1, linestyle="--")
            axis.set_yticks([])
            axis.spines[["top", "right", "left"]].set_visible(False)
            small = {"ha": "right", "fontsize": 8}
            axis.text(0.995, 0.72, f"p50 {_time(median)}", transform=axis.transAxes, **small)
            if column == 0:
                name = title.replace(", relay", ",\nrelay")
                axis.set_ylabel(name, rotation=0, va="center", **small)
        axes[0, column].set_title(str(condition), fontsize=10)
        _label_time(axes[-1, column])
    figure.suptitle(
        "Time that one call takes (grey: its control; dashed: the budget of 10 ms)", fontsize=11
    )
    paths = [directory / "histogram.svg", directory / "histogram.png"]
    for path in paths:
        figure.savefig(path, dpi=130)
    plt.close(figure)
    return paths


def _titles(matrix: Matrix, conditions: Sequence[Condition]) -> list[str]:
    """The references, our variants with a span, the peers: what both conditions have."""
    shared = [t for t in matrix.cells[conditions[0]] if t in matrix.cells[conditions[1]]]
    mine = [title for title in shared if title.startswith("sidelight") and "with span" in title]
    peers = [t for t in shared if not t.startswith("sidelight") and t not in REFERENCES]
    return [*REFERENCES, *mine, *peers]


def _histogram(axis: Any, nanoseconds: Iterable[int], colour: str) -> None:
    low, high = _DECADES
    bins = round((high - low) * _BINS_PER_DECADE)
    counts = [0] * bins
    for value in nanoseconds:
        position = (math.log10(max(value, 1) / 1e3) - low) * _BINS_PER_DECADE
        counts[max(0, min(bins - 1, int(position)))] += 1
    edges = [10 ** (low + index / _BINS_PER_DECADE) for index in range(bins + 1)]
    top = max(counts) or 1
    # The square root keeps a tail of a few calls in a thousand visible.
    heights = [math.sqrt(count / top) for count in counts]
    axis.stairs(heights, edges, fill=True, color=colour, alpha=0.75)
    axis.set_xscale("log")
    axis.set_xlim(edges[0], edges[-1])
    axis.set_ylim(0, 1.15)


def _label_time(axis: Any) -> None:
    ticks = [0.1, 1, 10, 100, 1e3, 1e4, 1e5]
    axis.set_xticks(ticks, [_time(tick) for tick in ticks], fontsize=8)
    axis.minorticks_off()


def _time(micros: float) -> str:
    if micros >= 1000:
        return f"{micros / 1000:.3g} ms"
    return f"{micros:.3g} µs" if micros >= 1 else f"{micros * 1000:.3g} ns"
