"""Processes with a spool on a `forgetful` machine, and what must hold whatever befalls them.

The spool, the workers and the keeper are the real ones; the disk, the clock and the sinks are not.
"""

from __future__ import annotations

import contextlib
import errno
import zlib
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
from tests.support.forgetful import Fault, Inode, Killed, Machine, ProcessDisk

from sidelight.emission.waiting import Watermark
from sidelight.exceptions import SinkRefusedError, SinkUnavailableError, SpoolError
from sidelight.record import FRAME, FRAME_MAGIC, Static, decode, encode, encode_static, frame
from sidelight.relay import housekeeping, worker
from sidelight.relay.relay import Relay
from sidelight.spool import (
    adoption,
    allocation,
    failures,
    scanner,
    segment,
    sink,
    supply,
    writer,
)
from sidelight.spool.header import PAGE, SLOTS, cursor_offset
from sidelight.spool.writer import Spool

DIRECTORY = Path("/var/lib/spool")
SINKS = ("store", "traces")
HEAD = encode_static(Static("e", "m:f", "scheduled", "succeeded", None))
SEGMENT = 12 * 1024
CONSTANTS = {
    supply: {
        "SMALLEST": SEGMENT,
        "LARGEST": 4 * SEGMENT,
        "_IN_MEMORY_LIMIT": 6 * SEGMENT,
    },
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
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now

    def time_ns(self) -> int:
        self.now += 1e-6
        return int(self.now * 1e9)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Backend:
    """Where one kind of sink brings records to, from whatever process."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_down = False
        self.poison: set[int] = set()
        self.taken: dict[int, None] = {}
        self.durable: set[int] = set()

    def cut_power(self, random: Random) -> None:
        """A store goes back to any of its commits after the last flush; a Collector is far away."""
        if self.name == "store":
            open_ = [number for number in self.taken if number not in self.durable]
            kept = open_[: random.randint(0, len(open_))]
            self.taken = dict.fromkeys([*self.durable, *kept])


@dataclass
class ModelSink:
    """One process's way to a backend."""

    backend: Backend
    model: SpoolModel
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
            assert self.model.sent[moment.artifact_id] == moment.attributes, "not what was written"
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


class ModelQuarantine:
    """What was set aside: it is never lost (it is flushed when it is written)."""

    def __init__(self, model: SpoolModel) -> None:
        self._model = model

    def keep(self, entry) -> bool:
        if entry.kind == "record":
            number = decode(entry.payload)[1].artifact_id
            self._model.set_aside[entry.sinks[0]].add(number)
        return True


@dataclass
class Process:
    """A living process: its part of the spool and, unless it leaves that to others, its relay."""

    number: int
    kind: str
    disk: ProcessDisk
    spool: Spool
    relay: Relay | None
    counts: Counter[str] = field(default_factory=Counter)
    written: list[tuple[tuple[int, int], int]] = field(default_factory=list)

    @property
    def reads_its_own(self) -> bool:
        return self.relay is not None


class SpoolModel(RuleBasedStateMachine):
    """See the module."""

    limit = 1 << 30

    def __init__(self) -> None:
        super().__init__()
        self._patches = contextlib.ExitStack()
        self.clock = Clock()
        for module in (
            allocation,
            failures,
            housekeeping,
            scanner,
            segment,
            sink,
            supply,
            worker,
            writer,
        ):
            if hasattr(module, "time"):
                self._patches.enter_context(mock.patch.object(module, "time", self.clock))
        for module, constants in CONSTANTS.items():
            for name, value in constants.items():
                self._patches.enter_context(mock.patch.object(module, name, value))
        self.machine = Machine()
        self.machine.folder(Path("/")).change(None, "var", type(self.machine.root)())
        self.machine.root.sync()
        self.backends = {name: Backend(name) for name in SINKS}
        self.processes: list[Process] = []
        self.started = 0
        self.sent: dict[int, object] = {}
        self.owed: dict[int, None] = {}
        self.promised: dict[int, None] = {}
        self.in_memory: dict[int, int] = {}
        self.set_aside: dict[str, set[int]] = {name: set() for name in SINKS}
        self.excused: set[int] = set()
        self.faulty: set[Inode] = set()
        self.let_go = False

    # -- what happens

    @initialize()
    def begin(self) -> None:
        self.start("thread")

    @precondition(lambda self: len(self.processes) < 3)
    @rule(kind=st.sampled_from(["thread", "thread", "external", "relay"]))
    def start(self, kind: str) -> None:
        disk = ProcessDisk(self.machine)
        self.started += 1
        counts: Counter[str] = Counter()

        def count(reason: str, problem: str) -> None:
            counts[reason] += 1

        meta = {
            "instance": f"process {self.started}",
            "sinks": list(SINKS),
            "relay": "external" if kind == "external" else "thread",
        }
        try:
            made = Spool(DIRECTORY, meta, limit=self.limit, count=count, disk=disk)
        except (OSError, Killed):
            disk.kill()
            return
        made.quarantine = ModelQuarantine(self)  # type: ignore[assignment]
        relay = None
        if kind != "external":
            sinks = [ModelSink(self.backends[name], self, disk) for name in SINKS]
            relay = Relay(made, sinks, Watermark(), count=count)
        self.processes.append(Process(self.started, kind, disk, made, relay, counts))

    @precondition(lambda self: self.processes)
    @rule(which=st.integers(0, 2), sizes=st.lists(st.integers(0, 3000), min_size=1, max_size=6))
    def emit(self, which: int, sizes: list[int]) -> None:
        process = self._process(which)
        for size in sizes:
            number = len(self.sent)
            attributes = {"pad": "x" * size}
            self.sent[number] = attributes
            moment = (number, number, number, None, 1, None, 0, 0, 0, attributes, None)
            data = frame(HEAD + encode(moment))
            with self._survived(process):
                try:
                    process.spool.write(data)
                except ValueError:
                    try:
                        process.spool.append(data)
                    except (SpoolError, OSError):
                        continue
                self.owed[number] = None
                self._note(process, number)
                process.written.append((process.spool.position(), number))
            if process.disk.is_dead:
                return

    @precondition(lambda self: self.processes)
    @rule(which=st.integers(0, 2), sink=st.sampled_from(SINKS), steps=st.integers(1, 4))
    def deliver(self, which: int, sink: str, steps: int) -> None:
        process = self._process(which)
        if process.relay is None:
            return
        (member,) = (w for w in process.relay.workers if w.sink.name == sink)
        with self._survived(process), contextlib.suppress(SinkUnavailableError):
            for _ in range(steps):
                member.step(retries=1)

    @precondition(lambda self: self.processes)
    @rule(which=st.integers(0, 2))
    def keep_house(self, which: int) -> None:
        process = self._process(which)
        if process.relay is not None:
            with self._survived(process):
                process.relay.housekeeping.step()

    @precondition(lambda self: self.processes)
    @rule(which=st.integers(0, 2))
    def sync(self, which: int) -> None:
        """A round of the keeper: what its process had written survives from now on."""
        process = self._process(which)
        if process.relay is None:
            return
        failed = self.machine.failures["sync"] + self.machine.failures["sync_directory"]
        written = [n for _, n in process.written if n not in self.in_memory]
        with self._survived(process):
            process.relay.housekeeping.sync()
            now = self.machine.failures["sync"] + self.machine.failures["sync_directory"]
            if now == failed:
                self.promised.update(dict.fromkeys(written))

    @precondition(lambda self: self.processes)
    @rule(which=st.integers(0, 2))
    def take_over(self, which: int) -> None:
        process = self._process(which)
        if process.relay is not None:
            with self._survived(process), contextlib.suppress(OSError):
                process.spool.adopt()

    @precondition(lambda self: self.processes)
    @rule(which=st.integers(0, 2))
    def rotate(self, which: int) -> None:
        process = self._process(which)
        with self._survived(process), contextlib.suppress(OSError):
            process.spool.rotate(process.spool._current)

    @precondition(lambda self: self.processes)
    @rule(which=st.integers(0, 2))
    def kill(self, which: int) -> None:
        process = self._process(which)
        process.disk.kill()
        self._bury(process)

    @precondition(lambda self: self.processes)
    @rule(which=st.integers(0, 2))
    def end(self, which: int) -> None:
        """In order, with what it has delivered by then."""
        process = self._process(which)
        with self._survived(process):
            if process.relay is not None:
                process.relay.stop(0.0)
            process.spool.close()
            process.disk.kill()
        self._bury(process)

    @rule(random=st.randoms(use_true_random=False))
    def cut_power(self, random: Random) -> None:
        for process in list(self.processes):
            process.disk.kill()
            self._bury(process)
        for backend in self.backends.values():
            backend.cut_power(random)
        gone = {n for n in self.owed if n not in self.promised}
        self.owed = {n: None for n in self.owed if n not in gone}
        for inode in self.machine.inodes:
            if inode.has_failed:
                self.excused.update(numbers_in(inode))
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

    @rule(
        which=st.integers(0, 20),
        slot=st.sampled_from(sorted(SLOTS)),
        junk=st.binary(min_size=8, max_size=8),
    )
    def spoil_a_cursor(self, which: int, slot: str, junk: bytes) -> None:
        files = self._files()
        if files:
            files[which % len(files)].write(cursor_offset(slot), junk)

    @rule(which=st.integers(0, 20))
    def delete_a_file(self, which: int) -> None:
        """Somebody tidies up: what was in it is lost if its process dies before it has noticed."""
        folder = self._folder()
        names = sorted(name for name in folder if name.endswith(".segment"))
        if names:
            name = names[which % len(names)]
            inode = folder[name]
            inode.links -= 1
            self.machine.folder(DIRECTORY).change(name, None, inode)
            self.faulty.add(inode)
            if not any(h.inode is inode for p in self.processes for h in p.disk.handles.values()):
                self.excused.update(numbers_in(inode))

    # -- what must hold

    @invariant()
    def nobody_reads_what_another_reads(self) -> None:
        readers: Counter[int] = Counter()
        for process in self.processes:
            mine = [*process.spool.adopted, *(process.spool.own if process.reads_its_own else ())]
            readers.update(
                {id(process.disk.handles[s.fd].inode) for s in mine if s.fd in process.disk.handles}
            )
        assert not [inode for inode, count in readers.items() if count > 1]

    @invariant()
    def what_is_deleted_every_sink_has(self) -> None:
        removed, self.machine.removed = self.machine.removed, []
        for inode in removed:
            for number in numbers_in(inode):
                if number in self.excused:
                    continue
                store = self.backends["store"]
                assert number in store.durable | self.set_aside["store"], f"{number} is deleted"
                traces = {*self.backends["traces"].taken, *self.set_aside["traces"]}
                assert number in traces or self._has_let_go(), f"{number} is not exported"

    @invariant()
    def stored_is_true(self) -> None:
        stored = {*self.backends["store"].taken, *self.set_aside["store"], *self.excused}
        for process in self.processes:
            if process.relay is not None:
                for position, number in process.written:
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
                if process.relay is not None:
                    self.clock.now += 20
                    process.relay.housekeeping.step()
                    process.relay.drain(1)
            self.nobody_reads_what_another_reads()
        while self.processes:
            self.end(0)
        self.start("relay")
        (last,) = self.processes
        assert last.relay is not None
        for _ in range(2):
            self.clock.now += 20
            last.relay.drain(1)
            last.relay.housekeeping.step()
        self.what_is_deleted_every_sink_has()
        for name, backend in self.backends.items():
            missing = self.owed.keys() - backend.taken - self.set_aside[name] - self.excused
            assert not missing or (name == "traces" and self._has_let_go()), (name, missing)
        self.end(0)
        left = [name for name in self._folder() if name.endswith(".segment")]
        assert not left, left

    # -- help

    def _process(self, which: int) -> Process:
        return self.processes[which % len(self.processes)]

    def _folder(self):
        try:
            return self.machine.folder(DIRECTORY).names
        except FileNotFoundError:
            return {}

    def _files(self) -> list[Inode]:
        return [each for name, each in sorted(self._folder().items()) if name.endswith(".segment")]

    @contextlib.contextmanager
    def _survived(self, process: Process):
        try:
            yield
        except Killed:
            process.disk.kill()
            self._bury(process)
        self._excuse_what_cannot_be_read(process)

    def _bury(self, process: Process) -> None:
        """What was in memory, or in a file without a name, has died with it."""
        if process in self.processes:
            self.let_go |= process.counts["spool full: telemetry let go"] > 0
            self.processes.remove(process)
            for each in (*process.spool.own, *process.spool.adopted):
                inode = getattr(each.mapping, "_inode", None)
                if inode is not None and not inode.links:
                    self.excused.update(numbers_in(inode))
            for inode in self.faulty:
                if not inode.links:
                    self.excused.update(numbers_in(inode))

    def _note(self, process: Process, number: int) -> None:
        if process.spool.own[-1].path is None:
            self.in_memory[number] = process.number

    def _excuse_what_cannot_be_read(self, process: Process) -> None:
        for each in (*process.spool.own, *process.spool.adopted):
            if each.is_unreadable and each.fd in process.disk.handles:
                self.excused.update(numbers_in(process.disk.handles[each.fd].inode))

    def _has_let_go(self) -> bool:
        self.let_go |= any(p.counts["spool full: telemetry let go"] for p in self.processes)
        return self.let_go


def numbers_in(inode: Inode) -> set[int]:
    """The whole records that a file holds."""
    numbers, at, data = set(), PAGE, bytes(inode.data)
    while (at := data.find(FRAME_MAGIC, at)) >= 0:
        _, length, check = FRAME.unpack_from(data.ljust(at + FRAME.size, b"\0"), at)
        payload = data[at + FRAME.size : at + FRAME.size + length]
        if zlib.crc32(payload) == check and payload:
            numbers.add(decode(payload)[1].artifact_id)
        at += 1
    return numbers
