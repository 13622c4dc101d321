"""The findings as Markdown."""

from __future__ import annotations

import statistics
from typing import Any


def markdown(report: dict[str, Any]) -> str:
    """Tables of what was measured."""
    parts = [_drained(report), _asked(report), _pruned(report)]
    return "\n".join(parts)


def _drained(report: dict[str, Any]) -> str:
    chunks = report["drained"]
    tenths: dict[int, list[dict[str, Any]]] = {}
    for chunk in chunks:
        tenths.setdefault((chunk["stored"] - 1) * 10 // report["events"], []).append(chunk)
    lines = [
        f"### {report['store']}: draining {report['events']:,} events of {report['days']} days",
        "",
        "| stored | events/s | best 100,000 | relay's CPU, µs/event | server's | MB | load |",
        "|---|---|---|---|---|---|---|",
    ]
    for those in tenths.values():
        events = sum(each["events"] for each in those)
        lines.append(
            f"| {those[-1]['stored']:,} "
            f"| {events / sum(each['seconds'] for each in those):,.0f} "
            f"| {max(each['events'] / each['seconds'] for each in those):,.0f} "
            f"| {sum(each['cpu'] for each in those) / events * 1e6:.1f} "
            f"| {sum(each['server_cpu'] for each in those) / events * 1e6:.1f} "
            f"| {max(each['memory'] for each in those) / 1e6:.0f} "
            f"| {statistics.mean(each['load'] for each in those):.1f} |"
        )
    whole = sum(each["events"] for each in chunks) / sum(each["seconds"] for each in chunks)
    lines += [
        "",
        f"{whole:,.0f} events/s over all.",
        f"{report['bytes'] / 1e9:.1f} GB on the disk after the pruning.",
        "",
    ]
    return "\n".join(lines)


def _asked(report: dict[str, Any]) -> str:
    asked = report["asked"]
    heads = " | ".join(f"at {int(stored):,}: median | slowest" for stored in asked)
    lines = [
        "### Questions, milliseconds",
        "",
        f"| question | {heads} |",
        "|---|" + "---|---|" * len(asked),
    ]
    for rows in zip(*(each["answers"] for each in asked.values()), strict=True):
        cells = " | ".join(f"{a['median'] * 1e3:.1f} | {a['slowest'] * 1e3:.1f}" for a in rows)
        lines.append(f"| {rows[0]['question']} | {cells} |")
    lines.append("")
    for stored, each in asked.items():
        walk = each["iterated"]
        before, most = (size / 1e6 for size in walk["memory"])
        lines.append(
            f"At {int(stored):,}: {walk['events']:,} events iterated at"
            f" {walk['events'] / walk['seconds']:,.0f}/s, memory {before:.0f} to {most:.0f} MB."
        )
    return "\n".join([*lines, ""])


def _pruned(report: dict[str, Any]) -> str:
    pruned = report["pruned"]
    before, most = (size / 1e6 for size in pruned["memory"])
    told = (
        f"{pruned['events']:,} events and {pruned['artifacts']:,} artifacts,"
        f" {pruned['partitions']} partitions dropped, in {pruned['seconds']:.1f} s"
        f" ({pruned['events'] / pruned['seconds']:,.0f} events/s),"
        f" {pruned['steps']:,} transactions,"
        f" the longest with its pause {pruned['longest'] * 1e3:.0f} ms;"
        f" memory {before:.0f} to {most:.0f} MB."
    )
    lines = [
        "### Pruning the oldest tenth beside a relay",
        "",
        told,
        "",
        "| a relay stores 20 events, ms | median | 99 % | slowest |",
        "|---|---|---|---|",
    ]
    for name in ("control", "beside"):
        cells = " | ".join(f"{seconds * 1e3:.1f}" for seconds in pruned[name])
        lines.append(f"| {name} | {cells} |")
    return "\n".join([*lines, ""])
