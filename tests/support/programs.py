"""Start programs that emit, collect their reports, and judge the result.

The oracle of the fault tests: what was acknowledged is in the store, once, and counted once; the
wrapped functions' outcomes are as undecorated; no more than 0.05 % of the calls took 10 ms longer
than their twins.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from tests.support import warm
from tests.support.balance import Balance
from tests.support.commands import sidelight
from tests.support.emitting import KINDS, LOSSES, ORDER, REPORT, Order

from sidelight import Store
from sidelight.exceptions import StoreError
from sidelight.settings import settle
from sidelight.spool.directory import segments_in
from sidelight.spool.header import PAGE
from sidelight.spool.segment import Segment
from sidelight.store.engine import connect
from sidelight.store.keys import NO_ORGANIZATION, day_text

BUDGET_NS = 10_000_000
ALLOWED = 0.0005
"""Share of the calls that may take longer than the budget, above the share of their twins."""
FEW = 2000
"""Calls of which the share allowed is one."""
PATIENCE = 300.0
"""Seconds to wait for a condition: longer than a busy machine needs, so that only a hang fails."""
ROOT = Path(__file__).parents[2]
EMITTING = ("-m", "tests.support.emitting")


@dataclass
class Reports:
    """The reports of programs.

    Attributes:
        slow: number, kind and microseconds of the calls over the budget.
    """

    numbers: list[int] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    spent: list[int] = field(default_factory=list)
    twins: list[int] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    differing: list[int] = field(default_factory=list)
    slow: list[tuple[int, str, int]] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)

    def take(
        self, n: int, spent: int, twin: int, kind: int, differs: int, lost: int, key: bytes
    ) -> None:
        """Take in one report. A call whose event was counted as lost was not acknowledged."""
        self.spent.append(spent)
        self.twins.append(twin)
        self.kinds[KINDS[kind]] += 1
        if differs:
            self.differing.append(n)
        if spent > BUDGET_NS:
            self.slow.append((n, KINDS[kind], spent // 1000))
        event_id = key.rstrip(b"\0").decode()
        if lost or (KINDS[kind] == "emit" and not event_id):
            self.lost.append(n)
            return
        if event_id:
            self.ids.add(event_id)
        self.numbers.append(n)

    def __add__(self, other: Reports) -> Reports:
        return Reports(
            self.numbers + other.numbers,
            self.ids | other.ids,
            self.spent + other.spent,
            self.twins + other.twins,
            self.kinds + other.kinds,
            self.differing + other.differing,
            self.slow + other.slow,
            self.lost + other.lost,
        )


class Program:
    """A running `tests.support.emitting`."""

    def __init__(
        self,
        store: str,
        spool: Path | None = None,
        *,
        order: Order | None = None,
        environment: Mapping[str, str] | None = None,
        python: str = sys.executable,
        command: Sequence[str] = EMITTING,
        before: Sequence[str] = (),
        **options: Any,
    ) -> None:
        """Start it.

        Args:
            store: URL of the events store.
            spool: its directory; None is the one that belongs to the store.
            order: what it is to do.
            environment: further variables.
            python: the interpreter.
            command: its arguments; the order is in the environment.
            before: a command that runs the interpreter, say ``unshare --pid --fork``.
            options: of `subprocess.Popen`.
        """
        self.reports = Reports()
        read, write = os.pipe()
        asked = order or Order()
        env = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "SIDELIGHT_"))}
        env |= {
            "SIDELIGHT_STORE": store,
            "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
            **({"SIDELIGHT_SPOOL": str(spool)} if spool is not None else {}),
            **(environment or {}),
            ORDER: replace(asked, report=write).as_json(),
        }
        files = (write, *options.pop("pass_fds", ()))
        nowhere, pipe = subprocess.DEVNULL, subprocess.PIPE
        self.process: subprocess.Popen[bytes]
        # A prelude may change what a warm program has imported already.
        own = command != EMITTING or before or options or asked.prelude
        if own or not warm.stands_for(python, environment):
            self.process = subprocess.Popen(
                [*before, python, *command],
                env=env, pass_fds=files, stdin=nowhere, stderr=pipe, **options,
            )  # fmt: skip
        else:
            self.process = warm.Popen(
                [*command], env,
                pass_fds=files, stdin=nowhere, stdout=nowhere, stderr=pipe, text=False,
            )  # fmt: skip
        os.close(write)
        self.stderr = b""
        self._reader = threading.Thread(target=self._read, args=(read,), daemon=True)
        self._complaints = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()
        self._complaints.start()

    def _read(self, fd: int) -> None:
        rest = b""
        with open(fd, "rb", buffering=0) as pipe:
            while data := pipe.read(1 << 16):
                rest += data
                whole = len(rest) - len(rest) % REPORT.size
                for report in REPORT.iter_unpack(rest[:whole]):
                    self.reports.take(*report)
                rest = rest[whole:]

    def _listen(self) -> None:
        assert self.process.stderr is not None
        while data := self.process.stderr.read1(1 << 16):  # type: ignore[attr-defined]
            self.stderr = (self.stderr + data)[-100_000:]

    @property
    def calls(self) -> int:
        """The number of calls reported so far."""
        return len(self.reports.spent)

    def emit(self, at_least: int, seconds: float = PATIENCE) -> None:
        """Wait until the program has reported this many more calls."""
        wanted, until = self.calls + at_least, time.monotonic() + seconds
        while self.calls < wanted:
            ended = self.process.poll()
            assert ended is None or self.calls >= wanted or self._reader.is_alive(), self.told()
            assert time.monotonic() < until, f"{self.calls} of {wanted} calls: {self.told()}"
            time.sleep(0.005)

    def told(self) -> str:
        """Return the text that the program wrote to stderr."""
        return self.stderr.decode(errors="replace")

    def pause(self) -> None:
        """SIGSTOP."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Send SIGKILL, and collect the last reports."""
        self.process.send_signal(signal.SIGKILL)
        self.end()

    def stop(self, seconds: float = PATIENCE) -> int:
        """Let the program make its last call and end in order. Return the exit code."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGUSR1)
        return self.end(seconds)

    def end(self, seconds: float = PATIENCE) -> int:
        """Wait for the end, and collect all reports. Return the exit code."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        self._reader.join(10.0)  # a grandchild may hold the pipe for a while
        self._complaints.join(10.0)
        if self.process.stderr is not None and not self._complaints.is_alive():
            self.process.stderr.close()
        return code


@contextlib.contextmanager
def running(*arguments: Any, **named: Any) -> Iterator[Program]:
    """Yield a running program, and kill it if it has not ended."""
    program = Program(*arguments, **named)
    try:
        yield program
    finally:
        if program.process.poll() is None:
            program.kill()
        else:
            program.end()


def seconds_of_the_end(program: Program, seconds: float = PATIENCE) -> float:
    """Wait for the end of a program. Return the seconds since `preludes.TELL_WHEN`."""
    program.process.wait(seconds)
    ended = time.monotonic()
    program.end()
    told = program.told().splitlines()
    return ended - next(float(line) for line in told if line.replace(".", "", 1).isdigit())


def wait_until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait until a condition is true, or fail after `seconds`."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come true in time"
        time.sleep(0.05)


def stored(store: str) -> int:
    """Return the number of events in the store, or 0 if it cannot be read."""
    with contextlib.suppress(StoreError), Store(store) as opened:
        return opened.size()
    return 0


def caught_up(store: str, *programs: Program, seconds: float = PATIENCE) -> None:
    """Wait until relays have stored as many events as the programs have reported so far."""
    wanted = sum(program.calls - len(program.reports.lost) for program in programs)
    until = time.monotonic() + seconds
    while (found := stored(store)) < wanted:
        told = "; ".join(program.told() for program in programs)
        assert time.monotonic() < until, f"{found} of {wanted} events came in {seconds} s: {told}"
        time.sleep(0.05)


def all_arrive(store: str, *programs: Program, seconds: float = PATIENCE) -> None:
    """Wait for each event that was reported so far, because later ones may arrive first."""
    wanted = {str(n) for program in programs for n in program.reports.numbers}
    until = time.monotonic() + seconds
    while missing := wanted - _artifacts(store):
        told = "; ".join(program.told() for program in programs)
        assert time.monotonic() < until, f"{len(missing)} did not come in {seconds} s: {told}"
        time.sleep(0.05)


def _artifacts(store: str) -> set[str]:
    """Return the artifacts: one for each call. Empty if the store cannot be read."""
    with contextlib.suppress(StoreError, SQLAlchemyError):
        engine = connect(store, create=False, read_only=True)
        try:
            with engine.connect() as connection:
                return set(connection.scalars(text("SELECT artifact_id FROM artifacts")))
        finally:
            engine.dispose()
    return set()


def wait_for_the_disk(program: Program, spool: Path) -> None:
    """Wait until a program writes to a disk that was full or has failed."""
    since = time.time_ns()
    wait_until(
        lambda: any(_keeps(program, path) for path in segments_in(spool) if _at(path) > since)
    )


def _at(segment: Path) -> int:
    """Return the time in the name of a segment (ns)."""
    return int(segment.name.partition("-")[0], 16)


def _keeps(program: Program, path: Path) -> bool:
    with (
        contextlib.suppress(FileNotFoundError),
        contextlib.closing(Segment.inspect(path)) as segment,
    ):
        return segment.meta.get("pid") == program.process.pid and segment.has_more(PAGE)
    return False


def deliver(
    store: str, spool: Path | None = None, seconds: float = PATIENCE, *, otlp: str | None = None
) -> str:
    """Run ``sidelight relay --once`` in this process until it succeeds. Return its output.

    Do nothing if the spool is empty.
    """
    if not list(segments_in(settle(store, spool=spool).spool)):
        return ""
    arguments = ["relay", "--once", "--store", store]
    if spool is not None:
        arguments += ["--spool", str(spool)]
    if otlp is not None:
        arguments += ["--otlp", otlp]
    until = time.monotonic() + seconds
    while (done := sidelight(*arguments)).code:
        assert time.monotonic() < until, done.err
        time.sleep(0.1)
    return done.out + done.err


@dataclass(frozen=True)
class Verdict:
    """The result of a fault.

    Attributes:
        lost: numbers and event ids that were acknowledged and are not in the store.
        let_go: the number of calls whose receipt said that the event is lost.
        counted: what the store's table of losses says, by reason.
        duplicated: numbers that are there more than once.
        miscounted: what is wrong with the counters, in words.
        over, twins_over: calls, and twins, that took longer than the budget.
        p999, twin_p999: microseconds.
    """

    acknowledged: int
    stored: int
    lost: Sequence[object]
    duplicated: Sequence[int]
    miscounted: Sequence[str]
    differing: Sequence[int]
    let_go: int
    counted: Mapping[str, int]
    calls: int
    over: int
    twins_over: int
    p999: float
    twin_p999: float
    kinds: Mapping[str, int]
    slow: Sequence[tuple[int, str, int]]

    @property
    def balance(self) -> Balance:
        """Return the balance over the calls: a call whose receipt says `lost` has one as well."""
        missing = [n for n in self.lost if isinstance(n, int)]
        kept = self.acknowledged - len(missing)
        return Balance(
            self.acknowledged + self.let_go,
            kept,
            sum(self.counted.get(reason, 0) for reason in LOSSES),
            len(self.duplicated),
            self.stored - kept,
            missing[:10],
        )

    @property
    def excess(self) -> float:
        """Share of the calls over the budget, above the twins'."""
        return (self.over - self.twins_over) / max(1, self.calls)

    @property
    def over_budget(self) -> bool:
        """Return whether more calls are over the budget than chance explains (three deviations).

        Few calls prove nothing. Where the machine interrupts the twins as well, it may interrupt
        the calls four times as often, because awaited calls take up to 8 ms and the twins none.
        """
        if self.calls < FEW:
            return False
        allowed = ALLOWED * self.calls + 4 * self.twins_over
        return self.over > allowed + 3 * math.sqrt(allowed + 1)

    def check(self, *, budget: bool = True) -> None:
        """Check that nothing is lost, stored twice or miscounted, and that the budget is kept.

        Losses that the receipts admit are counted exactly.
        """
        assert not self.lost, f"{len(self.lost)} of {self.acknowledged} lost: {self.lost[:10]}"
        assert not self.duplicated, f"stored twice: {self.duplicated[:10]}"
        assert not self.miscounted, "; ".join(self.miscounted[:10])
        assert not self.differing, f"another outcome than undecorated: {self.differing[:10]}"
        assert not self.balance.lost, f"let go {self.let_go}, counted {dict(self.counted)}"
        if budget:
            assert not self.over_budget, (
                f"{self.over} of {self.calls} calls took more than 10 ms, {self.twins_over} twins:"
                f" {self.slow[:20]}"
            )


def judge(store: str, *programs: Program, reports: Reports | None = None) -> Verdict:
    """Compare the acknowledged calls with the content of the store."""
    told = reports or Reports()
    for program in programs:
        told = told + program.reports
    engine = connect(store, create=False, read_only=True)
    try:
        with engine.begin() as connection:
            rows = connection.execute(
                text(
                    "SELECT CAST(event_id AS TEXT), type, artifact_id, organization_id,"
                    " occurred_at, CAST(attributes AS TEXT) FROM events"
                )
            ).all()
            counts = connection.execute(
                text("SELECT organization_id, type, day, count FROM event_counts WHERE count <> 0")
            ).all()
            artifacts = connection.execute(text("SELECT artifact_id, events FROM artifacts")).all()
            counted = connection.execute(
                text("SELECT reason, sum(count) FROM losses GROUP BY reason")
            ).all()
    finally:
        engine.dispose()
    numbers = Counter(n for row in rows if (n := json.loads(row[5]).get("n")) is not None)
    keys = {row[0] for row in rows}
    spent, twins = sorted(told.spent), sorted(told.twins)
    return Verdict(
        acknowledged=len(told.numbers),
        stored=len(rows),
        lost=[*sorted(set(told.numbers) - set(numbers)), *sorted(told.ids - keys)],
        duplicated=sorted(n for n, times in numbers.items() if times > 1),
        miscounted=[
            *_miscounted(rows, counts, artifacts),
            *(f"{n} was said to be lost, and is stored" for n in set(told.lost) & set(numbers)),
        ],
        differing=told.differing,
        let_go=len(told.lost),
        counted={reason: int(count) for reason, count in counted},
        calls=len(spent),
        over=sum(value > BUDGET_NS for value in spent),
        twins_over=sum(value > BUDGET_NS for value in twins),
        p999=_quantile(spent, 0.999) / 1e3,
        twin_p999=_quantile(twins, 0.999) / 1e3,
        kinds=told.kinds,
        slow=told.slow,
    )


def _miscounted(rows: Sequence[Any], counts: Sequence[Any], artifacts: Sequence[Any]) -> Any:
    made = Counter((row[3] or NO_ORGANIZATION, row[1], day_text(row[4])) for row in rows)
    kept = {(organization, type_, day): count for organization, type_, day, count in counts}
    for key in sorted(made.keys() | kept.keys()):
        if made[key] != kept.get(key, 0):
            yield f"{key}: {made[key]} rows, counted {kept.get(key, 0)}"
    about = Counter(row[2] for row in rows if row[2] is not None)
    known = dict(map(tuple, artifacts))
    for artifact in sorted(about.keys() | known.keys()):
        if about[artifact] != known.get(artifact, 0):
            yield f"artifact {artifact}: {about[artifact]} rows, counted {known.get(artifact, 0)}"


def _quantile(ordered: Sequence[int], share: float) -> int:
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0


def nothing_left(store: str, spool: Path | None = None) -> None:
    """Check that the spool is empty, because delivered segments are deleted."""
    directory = settle(store, spool=spool).spool
    assert list(segments_in(directory)) == []
