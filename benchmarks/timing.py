"""The measuring loops: each call is timed alone, and each is followed by its control."""

from __future__ import annotations

import asyncio
import time
from array import array
from dataclasses import dataclass, field
from typing import Final

from benchmarks.neighbours import busy_threads
from benchmarks.work import ARTIFACTS, ORGANIZATION, Subject

PAUSE: Final = 0.002
"""Seconds that a pausing caller sleeps before each call, and so gives the GIL away."""
WARM_UP: Final = 200
_WARM_SHARE: Final = 1e8  # ns of warm-up, at the longest, for each second of measuring
_MASK: Final = len(ARTIFACTS) - 1
_clock = time.perf_counter_ns


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """The subject of a measurement.

    Attributes:
        subject: its name in the process that has it.
        calls: how many to time; as many again of the control.
        pausing: sleep before each call, instead of a tight loop.
        threads: CPU-bound threads beside.
        seconds: stop after that long, however many calls there were.
    """

    subject: str
    calls: int
    pausing: bool = False
    threads: int = 0
    seconds: float = 60.0


@dataclass(slots=True)
class Samples:
    """Nanoseconds of each call, and of each control.

    Attributes:
        stored: of how many calls the store had the event when they returned; None: not asked.
    """

    calls: array[int] = field(default_factory=lambda: array("q"))
    control: array[int] = field(default_factory=lambda: array("q"))
    stored: int | None = None


def measure(subject: Subject, order: Order) -> Samples:
    """Carry out an order."""
    pause = PAUSE if order.pausing else 0.0
    with busy_threads(order.threads):
        if subject.asynchronous:
            return asyncio.run(_measure_async(subject, order.calls, pause, order.seconds))
        return _measure(subject, order.calls, pause, order.seconds)


def _measure(subject: Subject, calls: int, pause: float, seconds: float) -> Samples:
    call, control, sleep = subject.call, subject.control, time.sleep
    samples = _room(calls)
    spent, still = samples.calls, samples.control
    warm = _clock() + int(seconds * _WARM_SHARE)
    for number in range(min(WARM_UP, calls)):
        control("warm-up", ORGANIZATION, number)
        call("warm-up", ORGANIZATION, number)
        if _clock() > warm:
            break
    until = _clock() + int(seconds * 1e9)
    stored = subject.stored
    begun = had = 0
    number = -1
    for number in range(calls):
        artifact = ARTIFACTS[number & _MASK]
        if pause:
            sleep(pause)
        begun = _clock()
        control(artifact, ORGANIZATION, number)
        still[number] = _clock() - begun
        if pause:
            sleep(pause)
        begun = _clock()
        call(artifact, ORGANIZATION, number)
        spent[number] = _clock() - begun
        if stored is not None:
            had += stored()
        if begun > until:
            break
    return _cut(samples, number + 1, None if stored is None else had)


async def _measure_async(subject: Subject, calls: int, pause: float, seconds: float) -> Samples:
    call, control, sleep = subject.call, subject.control, asyncio.sleep
    samples = _room(calls)
    spent, still = samples.calls, samples.control
    warm = _clock() + int(seconds * _WARM_SHARE)
    for number in range(min(WARM_UP, calls)):
        await control("warm-up", ORGANIZATION, number)
        await call("warm-up", ORGANIZATION, number)
        if _clock() > warm:
            break
    until = _clock() + int(seconds * 1e9)
    stored = subject.stored
    begun = had = 0
    number = -1
    for number in range(calls):
        artifact = ARTIFACTS[number & _MASK]
        if pause:
            await sleep(pause)
        begun = _clock()
        await control(artifact, ORGANIZATION, number)
        still[number] = _clock() - begun
        if pause:
            await sleep(pause)
        begun = _clock()
        await call(artifact, ORGANIZATION, number)
        spent[number] = _clock() - begun
        if stored is not None:
            had += stored()
        if begun > until:
            break
    return _cut(samples, number + 1, None if stored is None else had)


def _room(calls: int) -> Samples:
    return Samples(array("q", bytes(8 * calls)), array("q", bytes(8 * calls)))


def _cut(samples: Samples, done: int, stored: int | None) -> Samples:
    return Samples(samples.calls[:done], samples.control[:done], stored)
