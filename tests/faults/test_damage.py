"""Row 10: the damaged spool of a dead process. Whole records arrive, damage is counted."""

import os
import random
import signal
import struct
from collections import Counter
from dataclasses import dataclass, replace

import pytest
from tests.support.balance import balance
from tests.support.emitting import Order
from tests.support.programs import Program, deliver, judge, nothing_left

from sidelight.emission.waiting import Watermark
from sidelight.record.format import FRAME, FRAME_MAGIC, decode
from sidelight.relay.relay import Relay
from sidelight.spool.directory import segments_in
from sidelight.spool.segment import PAGE, Segment
from sidelight.spool.supply import SMALLEST
from sidelight.spool.writer import Spool

DAMAGED = "damaged stretch of the spool"
AT_ONCE = 100  # damaged copies that one relay reads


def killed(directory, calls):
    """Run a program that emits, and is killed before any delivery."""
    order = Order(
        calls=calls,
        configure={"relay": "external"},
        finale="os.kill(os.getpid(), signal.SIGKILL)",
    )
    program = Program(f"sqlite:///{directory / 'events.db'}", directory / "spool", order=order)
    assert program.end() == -signal.SIGKILL, program.told()
    return program


@dataclass(frozen=True)
class Victim:
    """The segment of a killed program, and the positions of its records.

    Attributes:
        content: without the zeros behind it.
        frames: of each record, where it begins and ends, and the number of its call.
    """

    content: bytes
    frames: list[tuple[int, int, int]]

    @classmethod
    def read(cls, path):
        content = path.read_bytes()
        frames, at = [], PAGE
        while content[at : at + 4] == FRAME_MAGIC:
            _, length, _ = FRAME.unpack_from(content, at)
            end = at + FRAME.size + length
            frames.append((at, end, decode(content[at + FRAME.size : end])[1].attributes["n"]))
            at = end
        assert not content[at:].strip(b"\0")
        return cls(content[:at], frames)

    def changed(self, at, data):
        """Its content with other bytes in one place."""
        return self.content[:at] + data + self.content[at + len(data) :]

    def flipped(self, bit):
        """Its content with one bit flipped."""
        return self.changed(bit // 8, bytes([self.content[bit // 8] ^ 1 << bit % 8]))

    def whole(self, damaged):
        """The calls whose records are untouched in a damaged copy."""
        return [n for begin, end, n in self.frames if damaged[begin:end] == self.content[begin:end]]

    def shows_damage(self, damaged):
        """Whether something that was a record can be told from what was never written."""
        last = max((end for begin, end, n in self.frames if n in self.whole(damaged)), default=0)
        torn = (damaged[begin:end] for begin, end, n in self.frames if end > last)
        lost = [n for begin, end, n in self.frames if end < last and n not in self.whole(damaged)]
        return bool(lost) or any(stretch.strip(b"\0") for stretch in torn)


@pytest.fixture(scope="module")
def victim(tmp_path_factory):
    directory = tmp_path_factory.mktemp("killed")
    assert killed(directory, 20).calls == 20
    (path,) = segments_in(directory / "spool")
    found = Victim.read(path)
    assert [n for *_, n in found.frames] == list(range(20))
    return found


class Taking:
    """A sink that counts the records."""

    name = "store"

    def __init__(self):
        self.taken = Counter()

    def write(self, records, writer):
        self.taken.update(moment.attributes["n"] for _, moment in records)

    def sync(self):
        """Do nothing, because the sink is in memory."""

    def close(self):
        pass


def relayed(directory):
    """Deliver a spool directory. Return the count of each record, and the losses by reason."""
    losses = Counter()
    spool = Spool(directory, {"sinks": ["store"]})
    relay = Relay(spool, [Taking()], Watermark(), count=lambda reason, _: losses.update([reason]))
    try:
        before = None
        while (state := (relay.drain(), len(segments_in(directory)))) != before:
            before = state  # the relay adopts a limited number of segments at once
    finally:
        spool.close()
    return relay.workers[0].sink.taken, losses


def survive(victim, copies, directory, progress=lambda _: None):
    """Have each damaged copy delivered, and check what arrives. Answers the balance of all.

    Args:
        copies: contents, each with its size: what lies behind is zeros.
    """
    copies, whole, delivered = list(copies), Counter(), Counter()
    for start in range(0, len(copies), AT_ONCE):
        progress(f"copy {start} of {len(copies)}")
        batch = copies[start : start + AT_ONCE]
        spool = directory / f"spool-{start}"
        spool.mkdir()
        for number, (content, size) in enumerate(batch):
            path = spool / f"{number:016x}-00000000.segment"
            path.write_bytes(content[:size])
            os.truncate(path, size)
        taken, losses = relayed(spool)
        wanted = Counter(n for content, size in batch for n in victim.whole(content[:size]))
        assert taken == wanted, f"copies {start} and following"
        whole += wanted
        damaged = sum(victim.shows_damage(content[:size]) for content, size in batch)
        assert losses[DAMAGED] >= damaged
        assert bool(losses[DAMAGED]) == bool(damaged)
        assert not list(segments_in(spool)), "what was delivered is deleted"
        delivered += taken
    return len(copies), balance(whole.elements(), delivered.elements())


@pytest.fixture
def tell(row, victim, tmp_path, progress):
    """Check damaged copies, and enter them into the table."""

    def check(fault, copies):
        injected, delivered = survive(victim, copies, tmp_path, progress)
        row(10, fault, injected=injected, verdict=delivered)

    return check


def test_the_tail_cut_at_every_byte(victim, full, tell):
    """From an empty file on, header included."""
    content = victim.content
    edges = {
        edge + near
        for begin, end, _ in victim.frames
        for edge in (begin, end)
        for near in (-1, 0, 1)
    }
    cuts = {*range(0, len(content) + 1, 1 if full else 61), *range(20), *edges}
    tell("tail cut", ((content, cut) for cut in sorted(cuts) if cut <= len(content)))


def test_bits_of_the_header_flipped(victim, full, tell):
    """Every record arrives, with any header."""
    meta = len(victim.content[:PAGE].rstrip(b"\0"))
    bits = [*range(8 * 24), *range(8 * 64, 8 * 96), *range(8 * 256, 8 * meta)]
    copies = [
        (victim.flipped(bit), SMALLEST)
        for bit in (bits if full else [*bits[:448:11], *bits[448::101]])
    ]
    copies += [
        (victim.changed(0, bytes(PAGE)), SMALLEST),
        (victim.changed(0, b"\xff" * PAGE), SMALLEST),
    ]
    tell("header damaged", copies)


def test_bits_of_records_flipped(victim, full, tell):
    """The damaged record is set aside, and its neighbours arrive."""
    bits = []
    for begin, end, _ in victim.frames[:: 1 if full else 7]:
        bits += range(8 * begin, 8 * (begin + FRAME.size), 1 if full else 3)
        bits += range(8 * (begin + FRAME.size), 8 * end, 5 if full else 97)
    tell("bit of a record flipped", ((victim.flipped(bit), SMALLEST) for bit in bits))


def test_lengths_that_lie(victim, full, tell):
    """The scanner skips nothing by the length that a damaged record claims."""
    copies = []
    for number, (begin, end, _) in enumerate(victim.frames):
        true = end - begin - FRAME.size
        following = [e - begin - FRAME.size for _, e, _ in victim.frames[number + 1 :]]
        lies = [0, 1, true - 1, true + 1, *following, 2 * true, SMALLEST, 2**31, 2**32 - 1]
        if full or number % 5 == 0:
            copies += [(victim.changed(begin + 4, struct.pack("<I", n)), SMALLEST) for n in lies]
    tell("length that lies", copies)


def test_stretches_overwritten(victim, full, randomness, tell):
    """Zeros, noise, and repeated frame magic overwrite a stretch."""
    content, copies = victim.content, []
    for _ in range(2000 if full else 12):
        begin = randomness.randrange(PAGE, len(content))
        size = min(randomness.choice([1, 12, 100, 512, PAGE]), len(content) - begin)
        noise = randomness.randbytes(size)
        beginnings = (FRAME_MAGIC * size)[:size]
        copies += [
            (victim.changed(begin, data), SMALLEST) for data in (bytes(size), noise, beginnings)
        ]
    tell("stretch overwritten", copies)


def test_bits_of_a_cursor_flipped(victim, tmp_path, full, row):
    """A damaged cursor delivers too much, and never too little, because it is a hint."""
    path = tmp_path / "0000000000000000-00000000.segment"
    path.write_bytes(victim.content)
    os.truncate(path, SMALLEST)
    half = victim.frames[10][0]
    segment = Segment.adopt(path)
    segment.advance("store", half)
    segment.close()
    advanced = Victim(path.read_bytes()[: len(victim.content)], victim.frames)
    bits, found = [None, *range(8 * 64, 8 * 96, 1 if full else 11)], []
    for bit in bits:
        spool = tmp_path / f"spool-{bit}"
        spool.mkdir()
        copy = spool / path.name
        copy.write_bytes(advanced.content if bit is None else advanced.flipped(bit))
        os.truncate(copy, SMALLEST)
        taken, losses = relayed(spool)
        assert set(taken) >= set(range(10, 20)), f"bit {bit}"
        assert not losses
        if bit is None:
            assert set(taken) == set(range(10, 20))
        found += [(bit, n) for n in (*range(10), *taken.elements())]
    every = [(bit, n) for bit in bits for n in range(20)]
    verdict = balance(every, found, is_repeated=True)
    row(10, "cursor damaged", injected=len(bits) - 1, verdict=verdict)


def test_a_large_segment_damaged_in_many_places(tmp_path, full, progress, row):
    """The command line delivers the damaged segment into a real store."""
    rounds = 20 if full else 1
    for number in range(rounds):
        progress(f"round {number} of {rounds}")
        directory = tmp_path / str(number)
        directory.mkdir()
        program = killed(directory, 2000)
        (path,) = segments_in(directory / "spool")
        victim = Victim.read(path)
        damaged = bytearray(victim.content)
        randomness = random.Random(number)
        for _ in range(12):
            at = randomness.randrange(PAGE, len(damaged) - PAGE)
            damage = randomness.choice(
                [bytes(PAGE), b"\xff", FRAME_MAGIC, randomness.randbytes(64)]
            )
            damaged[at : at + len(damage)] = damage
        with path.open("r+b") as file:
            file.write(damaged)
        whole = victim.whole(damaged)
        deliver(f"sqlite:///{directory / 'events.db'}", directory / "spool")
        verdict = judge(
            f"sqlite:///{directory / 'events.db'}",
            reports=replace(program.reports, numbers=whole, ids=set()),
        )
        assert verdict.stored == len(whole)
        assert verdict.counted[DAMAGED] >= 6
        assert len(list((directory / "spool" / "quarantine").iterdir())) == verdict.counted[DAMAGED]
    row(10, "damaged in twelve places", injected=12 * rounds, verdict=verdict)
    nothing_left(f"sqlite:///{directory / 'events.db'}", directory / "spool")
