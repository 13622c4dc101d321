"""A model of several processes with one spool on a `forgetful` machine, and what must always hold.

Spool, workers and housekeeping are the real ones. Disk, clock and sinks are not.
"""

from __future__ import annotations

import contextlib
import errno
import functools
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from unittest import mock

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from tests.support.forgetful import Fault, Folder, Inode, Killed, Machine, ProcessDisk

from sidelight.emission import Watermark
from sidelight.exceptions import SinkRefusedError, SinkUnavailableError, SpoolError
from sidelight.record import FRAME_MAGIC, Static, decode, encode, encode_static, frame, payload_at
from sidelight.relay import Relay, housekeeping, reading, sources, worker
from sidelight.spool import (
    PAGE,
    Segment,
    Spool,
    adoption,
    allocation,
    failures,
    scanner,
    segment,
    sink,
    supply,
    writer,
)
from sidelight.spool.header import SLOTS, cursor_offset

DIRECTORY = Path("/var/lib/spool")
HOT = Path("/shm/spool")
SINKS = ("store", "traces")
HEAD = encode_static(Static("e", "m:f", "scheduled", "succeeded", None))
SEGMENT = 12 * 1024
TELEMETRY_DELETED = "spool full: telemetry let go"
TIMED = (allocation, sink)  # these read the wall clock, and the others the monotonic one
MONOTONIC = (failures, housekeeping, reading, scanner, segment, sources, supply, worker, writer)
CONSTANTS = {
    supply: {"SMALLEST": SEGMENT, "LARGEST": 4 * SEGMENT, "_IN_MEMORY_LIMIT": 6 * SEGMENT},
    segment: {"SMALL": 2 * PAGE},
    writer: {"SMALL": SEGMENT},
    adoption: {"_MAX_OPEN": 2},
    housekeeping: {"SMALLEST": SEGMENT},
}
ERRORS = {
    "create": (errno.ENOSPC, errno.EMFILE, errno.EROFS),
    "open": (errno.EMFILE, errno.EIO),
    "allocate": (errno.ENOSPC, errno.EFBIG),
    "truncate": (errno.EIO,),
    "write": (errno.ENOSPC, errno.EIO, 0),
    "read": (errno.EIO,),
    "map": (errno.ENOMEM,),
    "sync": (errno.EIO,),
    "sync_directory": (errno.EIO,),
    "rename": (errno.ENOSPC,),
    "rename ends": (),
    "unlink": (errno.EROFS, errno.EIO),
    "unlink ends": (),
    "names": (errno.EMFILE, errno.EIO),
    "commit": (),
    "flush": (errno.EIO,),
}
KILL = -1


class Clock:
    """A clock that moves only on request."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    time = monotonic

    def time_ns(self) -> int:
        self.now += 1e-6
        return int(self.now * 1e9)


class Backend:
    """The records that one kind of sink has taken, from all processes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_down = False
        self.poison: set[int] = set()
        self.taken: dict[int, None] = {}
        self.durable: set[int] = set()

    def cut_power(self, random: Random) -> None:
        """Take the store back to any commit after its last flush; the Collector is far away."""
        if self.name == "store":
            volatile = [number for number in self.taken if number not in self.durable]
            kept = volatile[: random.randint(0, len(volatile))]
            self.taken = dict.fromkeys([*self.durable, *kept])


@dataclass
class ModelSink:
    """The sink of one process."""

    backend: Backend
    sent: dict[int, object]
    disk: ProcessDisk

    @property
    def name(self) -> str:
        return self.backend.name

    def write(self, records, writer) -> None:
        if self.backend.is_down:
            raise SinkUnavailableError(sink=self.name, problem="down")
        numbers = [moment.artifact_id for _, moment in records]
        if self.backend.poison & set(numbers):
            raise SinkRefusedError(sink=self.name, problem="poison")
        assert numbers == sorted(set(numbers)), "out of order within a segment"
        for _, moment in records:
            assert self.sent[moment.artifact_id] == moment.attributes, "not what was written"
        self.backend.taken.update(dict.fromkeys(numbers))
        if numbers:
            self.disk.reach("commit")

    def sync(self) -> None:
        self.disk.reach("flush")
        self.backend.durable = set(self.backend.taken)

    def close(self) -> None:
        pass

    def disown(self, *, busy: bool) -> bool:
        return not busy


@dataclass
class ModelQuarantine:
    """Numbers of quarantined records by sink; they are durable at once."""

    numbers: dict[str, set[int]]

    def keep(self, entry) -> bool:
        if entry.kind == "record":
            self.numbers[entry.sinks[0]].add(decode(entry.payload)[1].artifact_id)
        return True


@dataclass
class Process:
    """A live process: its spool and, unless it leaves that to others, its relay."""

    kind: str
    disk: ProcessDisk
    spool: Spool
    relay: Relay | None
    counts: Counter[str]
    written: list[tuple[tuple[int, int], int]] = field(default_factory=list)
    mapped: dict[Segment, Inode] = field(default_factory=dict)

    def note_mapped(self) -> None:
        """Note what each segment has mapped; a closed segment does not know."""
        for each in self.spool.own:
            if each.mapping is not None:
                self.mapped[each] = each.mapping._inode

    @property
    def readable(self):
        """The segments that this process may read."""
        return [*self.spool.adopted, *(self.spool.own if self.relay is not None else ())]


def process_rule(*, needs_relay: bool = False, **draws):
    """Make a rule of something that one process does, and may be killed or fail in."""

    def decorate(do):
        @precondition(lambda self: self.processes)
        @rule(which=st.integers(0, 2), **draws)
        @functools.wraps(do)
        def run(self, which, **drawn) -> None:
            process = self.processes[which % len(self.processes)]
            if process.relay is not None or not needs_relay:
                with self._survived(process), contextlib.suppress(OSError, SinkUnavailableError):
                    do(self, process, **drawn)

        del run.__wrapped__  # hypothesis reads the signature
        return run

    return decorate


class SpoolModel(RuleBasedStateMachine):
    """See the module."""

    limit = 1 << 30
    hot: Path | None = None

    def __init__(self) -> None:
        super().__init__()
        self._patches = contextlib.ExitStack()
        self.clock = Clock()
        clocks = {key: {"time": self.clock} for key in TIMED}
        clocks |= {key: {"monotonic": self.clock.monotonic} for key in MONOTONIC}
        for changes in (CONSTANTS, clocks):
            for module, values in changes.items():
                self._patches.enter_context(mock.patch.multiple(module, **values))
        self.machine = Machine()
        self.machine.root.change(None, "var", Folder())
        self.machine.root.change(None, "shm", Folder())
        self.machine.folder(HOT.parent).change(None, HOT.name, Folder(volatile=True))
        self.machine.folder(HOT.parent).sync()
        self.machine.root.sync()
        self.backends = {name: Backend(name) for name in SINKS}
        self.processes: list[Process] = []
        self.sent: dict[int, object] = {}
        self.owed: set[int] = set()
        self.durable: set[int] = set()
        self.in_memory: set[int] = set()
        self.quarantined: dict[str, set[int]] = {name: set() for name in SINKS}
        self.excused: set[int] = set()
        self.deleted_by_others: set[Inode] = set()
        self.let_go = False

    # -- what happens

    @initialize()
    def begin(self) -> None:
        self.start("thread")

    @precondition(lambda self: len(self.processes) < 3)
    @rule(kind=st.sampled_from(["thread", "thread", "external", "relay"]))
    def start(self, kind: str) -> None:
        disk = ProcessDisk(self.machine)
        counts: Counter[str] = Counter()

        def count(reason: str, _: str) -> None:
            counts[reason] += 1

        meta = {"sinks": list(SINKS), "relay": "external" if kind == "external" else "thread"}
        try:
            spool = Spool(DIRECTORY, meta, limit=self.limit, count=count, disk=disk, hot=self.hot)
        except (OSError, Killed):
            disk.kill()
            return
        spool.quarantine = ModelQuarantine(self.quarantined)  # type: ignore[assignment]
        relay = None
        if kind != "external":
            sinks = [ModelSink(backend, self.sent, disk) for backend in self.backends.values()]
            relay = Relay(spool, sinks, Watermark(), count=count)
        self.processes.append(Process(kind, disk, spool, relay, counts))

    @process_rule(
        sizes=st.lists(st.integers(0, 3000), min_size=1, max_size=6),
        then=st.sampled_from([None, *SINKS]),
    )
    def emit(self, process: Process, sizes: list[int], then: str | None) -> None:
        for size in sizes:
            number = len(self.sent)
            attributes = self.sent[number] = {"pad": "x" * size}
            moment = (number, number, number, None, 1, None, 0, 0, 0, attributes, None)
            try:
                process.spool.append(frame(HEAD + encode(moment)))
            except (SpoolError, OSError):
                continue
            self.owed.add(number)
            if process.spool.own[-1].path is None:
                self.in_memory.add(number)
            process.written.append((process.spool.position(), number))
        if then is not None:
            self._deliver(process, then, 1)

    @process_rule(name=st.sampled_from(SINKS), steps=st.integers(1, 4))
    def deliver(self, process: Process, name: str, steps: int) -> None:
        self._deliver(process, name, steps)

    def _deliver(self, process: Process, name: str, steps: int) -> None:
        for member in process.relay.workers if process.relay is not None else ():
            for _ in range(steps if member.sink.name == name else 0):
                member.step(retries=0)

    @process_rule(needs_relay=True)
    def keep_house(self, process: Process) -> None:
        process.relay.housekeeping.step()

    @process_rule(needs_relay=True)
    def sync(self, process: Process) -> None:
        """Sync: what the process had written survives a power cut from now on."""
        failed = self.machine.failures.total()
        written = [number for _, number in process.written if number not in self.in_memory]
        process.relay.housekeeping.sync()
        if self.machine.failures.total() == failed:
            self.durable.update(written)

    @process_rule(needs_relay=True)
    def adopt(self, process: Process) -> None:
        process.spool.adopt()

    @process_rule()
    def rotate(self, process: Process) -> None:
        process.spool.rotate(process.spool.own[-1])

    @process_rule(orderly=st.booleans())
    def end(self, process: Process, orderly: bool) -> None:
        """End a process, in order or killed, with what was delivered by then."""
        process.note_mapped()
        if orderly:
            if process.relay is not None:
                process.relay.stop(0.0)
            process.spool.close()
        raise Killed

    @rule(random=st.randoms(use_true_random=False))
    def cut_power(self, random: Random) -> None:
        for process in list(self.processes):
            self._bury(process)
        for backend in self.backends.values():
            backend.cut_power(random)
        self.owed &= self.durable
        for inode in self.machine.inodes:
            if inode.has_failed:
                self.excused |= numbers_in(inode)
        self.machine.cut_power(random)

    @rule(call=st.sampled_from(sorted(ERRORS)), data=st.data())
    def fault(self, call: str, data: st.DataObject) -> None:
        error = data.draw(st.sampled_from([*ERRORS[call], KILL]))
        times = 1 if error == KILL else data.draw(st.integers(1, 3))
        self.machine.faults.append(Fault(call, error, times, data.draw(st.integers(0, 3))))

    @rule()
    def heal(self) -> None:
        self.machine.faults.clear()

    @rule(seconds=st.sampled_from([0.2, 1.0, 6.0, 12.0]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(name=st.sampled_from(SINKS), is_down=st.booleans())
    def answer(self, name: str, is_down: bool) -> None:
        self.backends[name].is_down = is_down

    @precondition(lambda self: self.sent)
    @rule(name=st.sampled_from(SINKS), number=st.integers(0, 200))
    def refuse(self, name: str, number: int) -> None:
        self.backends[name].poison.add(number % len(self.sent))

    @precondition(lambda self: self._files())
    @rule(
        which=st.integers(0, 20),
        name=st.sampled_from([*SLOTS]),
        junk=st.binary(min_size=8, max_size=8),
    )
    def damage_a_cursor(self, which: int, name: str, junk: bytes) -> None:
        files = [*self._files().values()]
        files[which % len(files)].write(cursor_offset(name), junk)

    @precondition(lambda self: self._files())
    @rule(which=st.integers(0, 20), moves=st.booleans())
    def delete_a_file(self, which: int, moves: bool) -> None:
        """Delete or move a file, as an administrator may; a live process still has its records."""
        files = self._files()
        name, inode = [*files.items()][which % len(files)]
        inode.links -= not moves
        self.machine.folder(DIRECTORY).change(name, None, inode)
        self.deleted_by_others.add(inode)
        if not any(h.inode is inode for p in self.processes for h in p.disk.handles.values()):
            self.excused |= numbers_in(inode)

    # -- what must hold

    @invariant()
    def each_file_has_one_reader(self) -> None:
        readers: Counter[int] = Counter()
        for process in self.processes:
            handles = process.disk.handles
            readers.update({id(handles[s.fd].inode) for s in process.readable if s.fd in handles})
        assert not [inode for inode, count in readers.items() if count > 1]

    @invariant()
    def every_sink_has_what_is_deleted(self) -> None:
        removed, self.machine.removed = self.machine.removed, []
        for inode in removed:
            for number in numbers_in(inode) - self.excused:
                store = self.backends["store"].durable | self.quarantined["store"]
                assert number in store, f"{number} is deleted"
                traces = {*self.backends["traces"].taken, *self.quarantined["traces"]}
                assert number in traces or self._has_let_go(), f"{number} is not exported"

    @invariant()
    def stored_is_true(self) -> None:
        stored = {*self.backends["store"].taken, *self.quarantined["store"], *self.excused}
        for process in self.processes:
            for position, number in process.written if process.relay else ():
                if process.relay.watermark.reached(position):
                    assert number in stored, f"{number} is not stored"

    def teardown(self) -> None:
        try:
            self._deliver_all()
        finally:
            self._patches.close()

    def _deliver_all(self) -> None:
        self.machine.faults.clear()
        for backend in self.backends.values():
            backend.is_down = False
        for _ in range(3):
            for process in self.processes:
                self._run_relay(process)
            self.each_file_has_one_reader()
        while self.processes:
            self.end(0, orderly=True)
        self.start("relay")
        for _ in range(3):
            self._run_relay(self.processes[0])
        self.every_sink_has_what_is_deleted()
        for name, backend in self.backends.items():
            missing = self.owed - backend.taken.keys() - self.quarantined[name] - self.excused
            assert not missing or (name == "traces" and self._has_let_go()), (name, missing)
        self.end(0, orderly=True)
        assert not self._files()

    def _run_relay(self, process: Process) -> None:
        if process.relay is not None:
            self.clock.now += 20
            process.relay.housekeeping.step()
            process.relay.drain(retries=0)

    # -- help

    def _files(self) -> dict[str, Inode]:
        try:
            names = self.machine.folder(DIRECTORY).names
        except FileNotFoundError:
            return {}
        return {name: names[name] for name in sorted(names) if name.endswith(".segment")}

    @contextlib.contextmanager
    def _survived(self, process: Process):
        try:
            yield
        except Killed:
            self._bury(process)
        for each in (*process.spool.own, *process.spool.adopted):
            if each.is_unreadable and each.fd in process.disk.handles:
                self.excused |= numbers_in(process.disk.handles[each.fd].inode)

    def _bury(self, process: Process) -> None:
        """Kill a process; records in memory, or in a file without a name, die with it."""
        process.disk.kill()
        self._has_let_go()
        self.processes.remove(process)
        process.note_mapped()
        mapped = [process.mapped[s] for s in process.spool.own if s in process.mapped]
        unnamed = [inode for inode in mapped if not inode.links]
        for inode in (*unnamed, *self.deleted_by_others):
            self.excused |= numbers_in(inode)

    def _has_let_go(self) -> bool:
        self.let_go |= any(process.counts[TELEMETRY_DELETED] for process in self.processes)
        return self.let_go


def numbers_in(inode: Inode) -> set[int]:
    """Return the numbers of the intact records in a file."""
    numbers, at, data = set(), PAGE, bytes(inode.data)
    while (at := data.find(FRAME_MAGIC, at)) >= 0:
        if (payload := payload_at(data, at)) is not None:
            numbers.add(decode(payload)[1].artifact_id)
        at += 1
    return numbers
