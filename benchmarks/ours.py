"""sidelight's own subjects, with the relay and the store in every state they can be in."""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal, TypeAlias

import sidelight
from benchmarks.houses import Address, Subjects
from benchmarks.neighbours import held
from benchmarks.timing import Order, measure
from benchmarks.work import Subject, make_long_work
from sidelight import arg, emits
from sidelight.emission.emitter import EMITTER

Store: TypeAlias = Literal["working", "frozen", "missing", "missing, no spool"]
AS_LONG: Final = "plain Python, as long as an emission"
STORES: Final[tuple[Store, ...]] = ("working", "frozen", "missing", "missing, no spool")


def title(mode: str, *, asynchronous: bool = False, span: bool = True) -> str:
    """The name of a variant."""
    kind = "async" if asynchronous else "sync"
    return f"sidelight {mode} {kind}{' with span' if span else ''}"


def variants(*, alone: bool = True) -> Subjects:
    """Scheduled and awaited, sync and async, with and without span.

    Args:
        alone: no other subject emits, so that an awaited emission knows whether it was stored.
    """
    subjects = {}
    for mode in ("scheduled", "awaited"):
        for asynchronous in (False, True):
            for span in (True, False):
                instrument = emits(
                    "artifact_received",
                    mode=mode,
                    span=span,
                    artifact_id=arg.artifact_id,
                    organization_id=arg.organization_id,
                )
                name = title(mode, asynchronous=asynchronous, span=span)
                subjects[name] = Subject.of(
                    instrument,
                    asynchronous=asynchronous,
                    stored=_stored if alone and mode == "awaited" else None,
                )
    return subjects


def _as_long(subject: Subject) -> Subject:
    """Work without sidelight that takes as long as a call of ``subject`` does."""
    samples = measure(subject, Order(subject="", calls=2000))
    return Subject(make_long_work(int(statistics.median(samples.calls))), subject.control)


def _stored() -> bool:
    """Whether the store has all that was emitted."""
    return EMITTER.watermark.reached(EMITTER.spool.position())


def _settle(seconds: float) -> None:
    """Wait until awaited emissions are acknowledged, as they are in a process that has started."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if sidelight.emit("warm-up", mode="awaited").state == "stored":
            return
        time.sleep(0.05)
    raise RuntimeError("the store acknowledges nothing")


def sidelight_house(
    directory: Path, *, external: bool = False, fed: bool = False, store: Store = "working"
) -> Iterator[Subjects]:
    """sidelight, configured as an application would.

    Args:
        directory: for the store and the spool.
        external: run no relay, so that this process only emits.
        fed: have a thread beside emit all the time, so that the relay is never idle.
        store: "frozen": another process locks its file; "missing": its path is below a file,
            so that it cannot be created; "no spool": so is the path of the spool.
    """
    where = directory
    if store.startswith("missing"):
        where = directory / "a regular file"
        where.touch()
    with contextlib.ExitStack() as stack:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # "keeps its spool in memory"
            sidelight.configure(
                f"sqlite:///{where / 'events.db'}",
                spool=where / "spool" if store.endswith("no spool") else directory / "spool",
                relay="external" if external else "thread",
                otlp=False,
            )
        if not store.startswith("missing"):
            sidelight.emit("warm-up")  # makes the tables
            if not external:
                _settle(10)
        if store == "frozen":
            stack.enter_context(held(directory / "events.db"))
        if fed:
            stack.enter_context(_feeder())
        subjects = variants(alone=not fed)
        subjects[AS_LONG] = _as_long(subjects[title("scheduled")])
        yield subjects


@contextlib.contextmanager
def _feeder() -> Iterator[None]:
    """A thread that emits about 8,000 events a second, so that the relay is never idle."""
    ended = threading.Event()

    def feed() -> None:
        number = 0
        while not ended.is_set():
            for _ in range(20):
                sidelight.emit("fed", artifact_id=f"fed-{number}", organization_id="feeder")
                number += 1
            time.sleep(0.002)

    thread = threading.Thread(target=feed, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def address(*, external: bool = False, fed: bool = False, store: Store = "working") -> Address:
    """sidelight in a separate process."""
    options = (("external", external), ("fed", fed), ("store", store))
    return Address("ours", "sidelight_house", options)
