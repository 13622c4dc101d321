"""The file format: what was written comes back, and damage costs only what it hit."""

import os
import random
import signal
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidelight.record import FRAME, FRAME_MAGIC, frame
from sidelight.spool import header
from sidelight.spool.disk import Disk
from sidelight.spool.header import PAGE
from sidelight.spool.scanner import Scanner
from sidelight.spool.segment import SMALL, Segment

SIZE = 64 * 1024


def create(directory, size=SIZE):
    return Segment.create(directory, size, {"instance": "i", "sinks": ["store"]})


def read_all(segment, limit=7):
    scanner = Scanner(segment, PAGE)
    payloads, damaged = [], []
    while True:
        batch = scanner.batch(limit)
        payloads += batch.payloads
        damaged += batch.damaged
        if not batch.payloads and not batch.damaged:
            return payloads, damaged


def reopened(path):
    segment = Segment.adopt(path)
    assert segment is not None
    return segment


def recovered(path):
    segment = reopened(path)
    payloads, _ = read_all(segment)
    segment.close()
    return payloads


def dead_segment_with(directory, payloads):
    """A segment whose writer has gone; its path, and where each frame begins."""
    segment = create(directory)
    offsets = []
    for payload in payloads:
        offsets.append(segment.tell())
        segment.write(frame(payload))
    end = segment.tell()
    segment.close()
    return segment.path, offsets, end


def test_what_was_written_is_read_in_order(tmp_path):
    segment = create(tmp_path)
    payloads = [os.urandom(n % 300 + 1) for n in range(100)]
    for payload in payloads:
        segment.write(frame(payload))
    assert read_all(segment) == (payloads, [])
    segment.seal()
    assert read_all(segment) == (payloads, [])


def test_file_is_private_and_allocated_in_full(tmp_path):
    segment = create(tmp_path)
    status = segment.path.stat()
    assert status.st_mode & 0o777 == 0o600
    assert status.st_size == SIZE
    assert status.st_blocks * 512 >= SIZE
    assert [p.name for p in tmp_path.iterdir()] == [segment.path.name]


def test_the_end_raises_and_a_seal_keeps_late_writers_out(tmp_path):
    segment = create(tmp_path)
    late = segment.write
    with pytest.raises(ValueError, match="range"):
        while True:
            segment.write(frame(b"x" * 5000))
    late(frame(b"small"))  # still fits: hence the seal
    segment.seal()
    with pytest.raises(ValueError, match="range"):
        late(frame(b"s"))
    assert read_all(segment)[0][-1] == b"small"


def test_a_living_owner_keeps_its_segment(tmp_path):
    segment = create(tmp_path)
    segment.write(frame(b"mine"))
    assert Segment.adopt(segment.path) is None
    looked = Segment.inspect(segment.path)
    assert read_all(looked)[0] == [b"mine"]
    looked.close()
    segment.close()
    assert read_all(reopened(segment.path))[0] == [b"mine"]


def test_one_reader_at_a_time(tmp_path):
    """Two relays on one spool must not both export what is in it."""
    segment = Segment.create(tmp_path, SIZE, {"relay": "external"})
    segment.write(frame(b"one"))
    attending = Segment.follow(segment.path)
    assert Segment.follow(segment.path) is None
    segment.close()  # its owner has ended: the reader goes on, and nobody else begins
    assert Segment.adopt(segment.path) is None
    assert Segment.follow(segment.path) is None
    assert attending.take_ownership()
    attending.close()
    adopting = reopened(segment.path)
    assert Segment.adopt(segment.path) is None
    assert Segment.follow(segment.path) is None
    adopting.close()


def state(path):
    segment = Segment.inspect(path)
    try:
        return segment.has_writer, segment.has_reader
    finally:
        segment.close()


def test_whoever_asks_who_holds_a_segment_takes_no_lock(tmp_path):
    segment = Segment.create(tmp_path, SIZE, {"relay": "external"})
    assert state(segment.path) == (True, False)
    attending = Segment.follow(segment.path)
    assert state(segment.path) == (True, True)
    segment.close()
    assert state(segment.path) == (False, True)
    assert attending.take_ownership()
    assert state(segment.path) == (False, True)
    attending.close()
    assert state(segment.path) == (False, False)


def test_a_killed_writer_holds_nothing(tmp_path):
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        segment = create(tmp_path)
        os.write(tell, os.fsencode(segment.path))
        signal.pause()
        os._exit(1)
    path = Path(os.fsdecode(os.read(ready, 4096)))
    for fd in (ready, tell):
        os.close(fd)
    try:
        assert state(path) == (True, False)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert state(path) == (False, False)


def test_cursor_is_remembered(tmp_path):
    segment = create(tmp_path)
    segment.write(frame(b"one"))
    middle = segment.tell()
    segment.write(frame(b"two"))
    segment.advance("store", middle)
    segment.close()
    again = reopened(segment.path)
    assert again.cursors["store"] == middle
    assert again.cursors["traces"] == PAGE
    assert Scanner(again, middle).batch(9).payloads == [b"two"]
    assert again.meta["instance"] == "i"


def test_a_cursor_that_lies_is_only_a_hint(tmp_path):
    segment = create(tmp_path)
    segment.write(frame(b"one"))
    segment.write(frame(b"two"))
    segment.advance("store", PAGE + 1)
    segment.close()
    assert reopened(segment.path).cursors["store"] == PAGE


def test_a_sink_that_was_at_the_end_stays_there_when_the_room_behind_is_given_back(tmp_path):
    """A cursor behind all that was written is at the end of the file, wherever that is by then."""
    segment = create(tmp_path, 2 * SIZE)
    segment.write(frame(b"one"))
    segment.advance("traces", 2 * SIZE)
    segment.close()
    again = reopened(segment.path)
    assert again.size == SIZE
    assert Scanner(again, again.cursors["traces"]).batch(9).payloads == []
    assert Scanner(again, again.cursors["store"]).batch(9).payloads == [b"one"]


@settings(max_examples=60, deadline=None)
@given(
    payloads=st.lists(
        st.one_of(
            st.binary(min_size=1, max_size=200),
            st.integers(1, 20_000).map(bytes),  # zeros are a payload as others are
            st.binary(max_size=20).map(lambda junk: FRAME_MAGIC + junk + bytes(5000)),
        ),
        max_size=12,
    ),
)
def test_what_the_dead_have_not_used_is_given_back(tmp_path_factory, payloads):
    """All that was written is still there, and less than a page behind it, but 64 KiB in all."""
    size = 512 * 1024
    segment = create(tmp_path_factory.mktemp("segment"), size)
    for payload in payloads:
        segment.write(frame(payload))
    end = segment.tell()
    segment.close()
    again = reopened(segment.path)
    assert max(end, SMALL) <= segment.path.stat().st_size < max(end + PAGE, SMALL + 1)
    assert read_all(again) == (payloads, [])
    again.close()
    assert recovered(segment.path) == payloads


def test_damage_keeps_its_room(tmp_path):
    """What follows a length that lies, or zeros, may be frames: only a reader can tell."""
    path, offsets, _ = dead_segment_with(tmp_path, [b"a" * 50, b"b" * 60, b"c" * 70])
    content = path.read_bytes()
    for at in (offsets[0], offsets[1]):
        for harm in (bytes(FRAME.size), FRAME.pack(FRAME_MAGIC, 3, 0)):
            path.write_bytes(
                (content[:at] + harm + content[at + len(harm) :]).ljust(2 * SIZE, b"\0")
            )
            assert recovered(path)[-1] == b"c" * 70
            assert path.stat().st_size == 2 * SIZE


def test_tail_cut_at_every_byte(tmp_path):
    path, offsets, end = dead_segment_with(tmp_path, [b"a" * 50, b"b" * 60, b"c" * 70])
    content = path.read_bytes()
    for cut in range(offsets[2], end):
        path.write_bytes(content[:cut].ljust(SIZE, b"\0"))
        assert recovered(path) == [b"a" * 50, b"b" * 60]
        path.write_bytes(content[:cut])  # the file itself cut short
        assert recovered(path) == [b"a" * 50, b"b" * 60]


@pytest.mark.parametrize("bit", range(FRAME.size * 8))
def test_a_flipped_header_bit_costs_one_record(tmp_path, bit):
    path, offsets, _ = dead_segment_with(tmp_path, [b"a" * 50, b"b" * 60, b"c" * 70])
    content = bytearray(path.read_bytes())
    content[offsets[1] + bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    payloads, damaged = read_all(reopened(path))
    assert payloads == [b"a" * 50, b"c" * 70]
    assert [offset for offset, _ in damaged] == [offsets[1]]


def test_a_zeroed_stretch_hides_nothing_behind_it(tmp_path):
    path, offsets, _ = dead_segment_with(tmp_path, [b"a" * 50, b"b" * 60, b"c" * 70])
    content = bytearray(path.read_bytes())
    content[offsets[1] : offsets[2]] = bytes(offsets[2] - offsets[1])
    path.write_bytes(content)
    assert read_all(reopened(path))[0] == [b"a" * 50, b"c" * 70]


def test_a_length_that_lies_does_not_swallow_its_successors(tmp_path):
    path, offsets, _ = dead_segment_with(tmp_path, [b"a" * 50, b"b" * 60, b"c" * 70])
    content = bytearray(path.read_bytes())
    claimed = SIZE - offsets[1] - FRAME.size
    body = bytes(content[offsets[1] + FRAME.size :])
    content[offsets[1] : offsets[1] + FRAME.size] = FRAME.pack(
        FRAME_MAGIC, claimed, zlib.crc32(body) ^ 1
    )
    path.write_bytes(content)
    assert read_all(reopened(path))[0] == [b"a" * 50, b"c" * 70]


def test_a_payload_that_looks_like_a_frame_is_a_payload(tmp_path):
    inner = frame(b"inner")
    path, _, _ = dead_segment_with(tmp_path, [inner, b"after"])
    assert read_all(reopened(path))[0] == [inner, b"after"]


def test_while_the_writer_lives_damage_is_not_yet(tmp_path):
    """Another process can see a frame half copied."""
    segment = create(tmp_path)
    reader = Segment.inspect(segment.path)
    whole = frame(b"x" * 100)
    at = segment.tell()
    segment.write(whole[:40])
    assert read_all(reader) == ([], [])
    segment.mapping.seek(at)
    segment.write(whole)
    assert read_all(reader) == ([b"x" * 100], [])
    reader.close()


def test_what_a_living_writer_has_behind_it_is_damage(tmp_path, monkeypatch):
    """Else one bad frame would hold up all others until the segment is full."""
    segment = create(tmp_path)
    for payload in (b"a" * 50, b"b" * 60, b"c" * 70):
        segment.write(frame(payload))
    segment.mapping[PAGE + FRAME.size + 50 + 20] ^= 1
    reader = Segment.inspect(segment.path)
    scanner = Scanner(reader, PAGE)
    assert scanner.batch(9).payloads == [b"a" * 50]
    assert scanner.batch(9).payloads == []  # it might be half copied
    monkeypatch.setattr("sidelight.spool.scanner._DOUBT", 0.0)
    batch = scanner.batch(9)
    assert batch.payloads == [b"c" * 70]
    assert [at for at, _ in batch.damaged] == [PAGE + FRAME.size + 50]
    reader.close()


def test_what_is_damaged_in_a_segment_of_our_own_holds_up_nobody(tmp_path):
    """Our own writers' frames are whole as soon as they are there."""
    segment = create(tmp_path)
    for payload in (b"a" * 50, b"b" * 60):
        segment.write(frame(payload))
    segment.mapping[PAGE + 20] ^= 1
    payloads, damaged = read_all(segment)
    assert payloads == [b"b" * 60]
    assert [at for at, _ in damaged] == [PAGE]


def test_what_is_written_between_the_last_look_and_the_seal_is_read(tmp_path):
    """The look had seen the zeros of the whole rest of the file."""
    segment = create(tmp_path)
    scanner = Scanner(segment, PAGE)
    for n in range(4):
        segment.write(frame(b"%d" % n))
    assert scanner.batch(2).payloads == [b"0", b"1"]
    for n in range(4, 6):
        segment.write(frame(b"%d" % n))
    segment.seal()
    assert scanner.batch(9).payloads == [b"2", b"3", b"4", b"5"]


class FailingDisk(Disk):
    """Reads so often, and then once not."""

    reads = 0

    def read(self, fd, size, offset):
        self.reads -= 1
        if not self.reads:
            raise MemoryError
        return super().read(fd, size, offset)


@pytest.mark.parametrize("reads", range(1, 6))
def test_what_was_read_when_the_rest_could_not_be_is_read_again(tmp_path, reads):
    sent = [bytes([n]) * 100_000 for n in range(1, 31)]
    writer = create(tmp_path, 3 * 1024 * 1024)
    for payload in sent:
        writer.write(frame(payload))
    writer.close()
    disk = FailingDisk()
    segment = Segment.adopt(writer.path, disk)
    scanner = Scanner(segment, PAGE)
    disk.reads = reads
    with pytest.raises(MemoryError):
        scanner.batch(100)
    assert scanner.batch(100).payloads == sent
    segment.close()


def test_a_header_page_that_is_gone_costs_only_the_names(tmp_path):
    path, _, _ = dead_segment_with(tmp_path, [b"a"])
    content = bytearray(path.read_bytes())
    content[:PAGE] = os.urandom(PAGE)
    path.write_bytes(content)
    again = reopened(path)
    assert Scanner(again, PAGE).batch(9).payloads == [b"a"]


def test_a_later_version_is_left_alone_and_one_that_is_damage_is_not(tmp_path, monkeypatch):
    """Every later one has the check of its head where ours is."""
    with monkeypatch.context() as patch:
        patch.setattr(header, "VERSION", header.VERSION + 1)
        later = Segment.create(tmp_path, SIZE, {"instance": "later"})
    later.write(frame(b"one"))
    path = later.path
    later.close()
    assert Segment.adopt(path) is None
    content = bytearray(path.read_bytes())
    content[9] ^= 1
    path.write_bytes(content)
    damaged = Segment.adopt(path)
    assert damaged is not None
    assert damaged.version == 0
    assert read_all(damaged)[0] == [b"one"]
    damaged.close()


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 900), min_size=1, max_size=40),
    damage=st.lists(
        st.tuples(st.integers(PAGE, SIZE - 1), st.binary(min_size=1, max_size=40)), max_size=4
    ),
    limit=st.integers(1, 50),
)
def test_whatever_the_damage_the_rest_is_delivered(tmp_path_factory, sizes, damage, limit):
    """A record comes out exactly if none of its bytes was touched, and none comes out changed."""
    directory = tmp_path_factory.mktemp("segment")
    randomness = random.Random(1)
    payloads = [i.to_bytes(4, "big") + randomness.randbytes(n) for i, n in enumerate(sizes)]
    path, offsets, _ = dead_segment_with(directory, payloads)
    before = path.read_bytes()
    content = bytearray(before)
    for offset, garbage in damage:
        content[offset : offset + len(garbage)] = garbage[: SIZE - offset]
    path.write_bytes(content)
    segment = reopened(path)
    read, _ = read_all(segment, limit)
    segment.close()
    intact = [
        payload
        for payload, at in zip(payloads, offsets, strict=True)
        if content[at : at + FRAME.size + len(payload)]
        == before[at : at + FRAME.size + len(payload)]
    ]
    assert read == intact
