"""The segment's file format: what was written is read, and damage costs only what it hit."""

import os
import random
import signal
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.platforms import needs_spool_files

from sidelight.record import FRAME, FRAME_MAGIC, frame
from sidelight.spool import PAGE, Scanner, Segment, header
from sidelight.spool.disk import Disk
from sidelight.spool.segment import SMALL

pytestmark = needs_spool_files

SIZE = SMALL
THREE = [b"a" * 50, b"b" * 60, b"c" * 70]
AT = [PAGE, PAGE + FRAME.size + 50, PAGE + 2 * FRAME.size + 110, PAGE + 3 * FRAME.size + 180]
"""Where each of the frames of THREE begins, and where the last ends."""


def create(directory, payloads=(), size=SIZE, **meta):
    segment = Segment.create(directory, size, {"instance": "i", "sinks": ["store"], **meta})
    for payload in payloads:
        segment.write(frame(payload))
    return segment


def orphan(directory, payloads=(), size=SIZE):
    """The path of a segment whose writer is dead."""
    segment = create(directory, payloads, size)
    segment.close()
    return segment.path


def read_all(segment, limit=7):
    scanner = Scanner(segment, PAGE)
    payloads, damaged = [], []
    while (batch := scanner.batch(limit)).payloads or batch.damaged:
        payloads += batch.payloads
        damaged += batch.damaged
    return payloads, damaged


def recovered(path):
    segment = Segment.adopt(path)
    try:
        return read_all(segment)
    finally:
        segment.close()


def overwrite(path, offset, data):
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def test_frames_are_read_in_order(tmp_path):
    payloads = [os.urandom(n % 300 + 1) for n in range(100)]
    segment = create(tmp_path, payloads)
    assert read_all(segment) == (payloads, [])
    segment.seal()
    assert read_all(segment) == (payloads, [])


def test_the_file_is_private_and_allocated_in_full(tmp_path):
    segment = create(tmp_path)
    status = segment.path.stat()
    assert (status.st_mode & 0o777, status.st_size) == (0o600, SIZE)
    assert status.st_blocks * 512 >= SIZE
    assert [each for each in tmp_path.iterdir() if each.suffix != ".lock"] == [segment.path]


def test_a_full_segment_raises_and_a_seal_refuses_late_writers(tmp_path):
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


# -- locks --------------------------------------------------------------------------------------


def test_a_live_writer_keeps_its_segment(tmp_path):
    segment = create(tmp_path, [b"mine"])
    assert Segment.adopt(segment.path) is None
    inspected = Segment.inspect(segment.path)
    assert read_all(inspected)[0] == [b"mine"]
    inspected.close()
    segment.close()
    assert recovered(segment.path)[0] == [b"mine"]


def state(path):
    segment = Segment.inspect(path)
    try:
        return segment.has_writer, segment.has_reader
    finally:
        segment.close()


def test_one_reader_at_a_time_and_questions_take_no_lock(tmp_path):
    """Two relays on one spool must not both deliver a segment."""
    segment = create(tmp_path, [b"one"], relay="external")
    path = segment.path

    def refuses_another_reader():
        return Segment.adopt_or_follow(path) is None and Segment.adopt(path) is None

    assert state(path) == (True, False)
    reader = Segment.adopt_or_follow(path)
    assert state(path) == (True, True)
    assert refuses_another_reader()
    segment.close()
    assert state(path) == (False, True)
    assert refuses_another_reader()
    assert reader.take_ownership()
    assert state(path) == (False, True)
    reader.close()
    assert state(path) == (False, False)
    reader = Segment.adopt(path)
    assert refuses_another_reader()
    reader.close()


def test_a_killed_writer_holds_no_lock(tmp_path):
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


# -- cursors and header -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cursor", "expected"), [(AT[1], AT[1]), (AT[1] + 1, PAGE)], ids=["valid", "within a frame"]
)
def test_a_cursor_is_a_hint(tmp_path, cursor, expected):
    segment = create(tmp_path, THREE)
    segment.advance("store", cursor)
    segment.close()
    again = Segment.adopt(segment.path)
    assert (again.cursors["store"], again.cursors["traces"]) == (expected, PAGE)
    assert Scanner(again, expected).batch(9).payloads == THREE[expected > PAGE :]
    assert again.meta["instance"] == "i"


def test_a_sink_at_the_end_stays_there_when_the_room_behind_is_given_back(tmp_path):
    segment = create(tmp_path, [b"one"], 2 * SIZE)
    segment.advance("traces", 2 * SIZE)
    segment.close()
    again = Segment.adopt(segment.path)
    assert again.size == SIZE
    assert Scanner(again, again.cursors["traces"]).batch(9).payloads == []
    assert Scanner(again, again.cursors["store"]).batch(9).payloads == [b"one"]


def test_a_damaged_header_costs_only_the_writer(tmp_path):
    path = orphan(tmp_path, [b"a"])
    overwrite(path, 0, os.urandom(PAGE))
    assert recovered(path) == ([b"a"], [])


def test_a_later_version_is_left_alone_but_a_damaged_version_is_not(tmp_path, monkeypatch):
    """Every later version has the checksum of its head at the same place."""
    with monkeypatch.context() as patch:
        patch.setattr(header, "VERSION", header.VERSION + 1)
        path = orphan(tmp_path, [b"one"])
    assert Segment.adopt(path) is None
    overwrite(path, 9, bytes([path.read_bytes()[9] ^ 1]))
    damaged = Segment.adopt(path)
    assert damaged.version == 0
    assert read_all(damaged)[0] == [b"one"]


# -- giving room back ---------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    payloads=st.lists(
        st.one_of(
            st.binary(min_size=1, max_size=200),
            st.integers(1, 20_000).map(bytes),  # zeros are a payload like any other
            st.binary(max_size=20).map(lambda junk: FRAME_MAGIC + junk + bytes(5000)),
        ),
        max_size=12,
    ),
)
def test_unused_room_of_an_orphan_is_given_back(tmp_path_factory, payloads):
    """All frames stay, and less than two pages behind them, but at least 64 KiB in all.

    The last of these pages stays for the ledger.
    """
    segment = create(tmp_path_factory.mktemp("segment"), payloads, 512 * 1024)
    end = segment.tell()
    segment.close()
    for _ in range(2):
        assert recovered(segment.path) == (payloads, [])
        assert max(end, SMALL) <= segment.path.stat().st_size < max(end + 2 * PAGE, SMALL + 1)


@pytest.mark.parametrize("at", AT[:2])
@pytest.mark.parametrize("harm", [bytes(FRAME.size), FRAME.pack(FRAME_MAGIC, 3, 0)])
def test_a_damaged_segment_keeps_its_room(tmp_path, at, harm):
    """Frames may follow a wrong length or zeros: only a reader can tell."""
    path = orphan(tmp_path, THREE)
    os.truncate(path, 2 * SIZE)
    overwrite(path, at, harm)
    assert recovered(path)[0][-1] == THREE[2]
    assert path.stat().st_size == 2 * SIZE


# -- damage -------------------------------------------------------------------------------------


def test_a_torn_tail_at_every_byte(tmp_path):
    path = orphan(tmp_path, THREE)
    content = path.read_bytes()
    for cut in range(AT[2], AT[3]):
        path.write_bytes(content[:cut].ljust(SIZE, b"\0"))
        assert recovered(path)[0] == THREE[:2]
        path.write_bytes(content[:cut])  # the file itself is cut short
        assert recovered(path)[0] == THREE[:2]


def a_length_that_swallows_its_successors(content):
    body = content[AT[1] + FRAME.size :]
    return FRAME.pack(FRAME_MAGIC, len(body), zlib.crc32(body) ^ 1)


def a_flipped_bit(bit):
    def flip(content):
        byte = AT[1] + bit // 8
        return content[AT[1] : byte] + bytes([content[byte] ^ 1 << bit % 8])

    return flip


@pytest.mark.parametrize(
    "harm",
    [
        *map(a_flipped_bit, range(FRAME.size * 8)),
        a_length_that_swallows_its_successors,
        lambda _: bytes(AT[2] - AT[1]),
    ],
)
def test_damage_costs_one_record(tmp_path, harm):
    path = orphan(tmp_path, THREE)
    overwrite(path, AT[1], harm(path.read_bytes()))
    payloads, damaged = recovered(path)
    assert payloads == [THREE[0], THREE[2]]
    assert {offset for offset, _ in damaged} <= {AT[1]}


def test_a_payload_that_looks_like_a_frame_is_a_payload(tmp_path):
    payloads = [frame(b"inner"), b"after"]
    assert recovered(orphan(tmp_path, payloads))[0] == payloads


def test_an_invalid_frame_of_a_live_writer_is_not_complete_yet(tmp_path):
    """Another process can see a frame half copied."""
    segment = create(tmp_path)
    reader = Segment.inspect(segment.path)
    whole = frame(b"x" * 100)
    segment.write(whole[:40])
    assert read_all(reader) == ([], [])
    segment.mapping.seek(PAGE)
    segment.write(whole)
    assert read_all(reader) == ([b"x" * 100], [])
    reader.close()


def test_an_invalid_frame_with_a_valid_one_behind_it_is_damage(tmp_path, monkeypatch):
    """Else one invalid frame would delay all others until the segment is full."""
    segment = create(tmp_path, THREE)
    segment.mapping[AT[1] + FRAME.size + 8] ^= 1
    reader = Segment.inspect(segment.path)
    scanner = Scanner(reader, PAGE)
    assert scanner.batch(9).payloads == THREE[:1]
    assert scanner.batch(9).payloads == []  # it might be half copied
    monkeypatch.setattr("sidelight.spool.scanner._DOUBT", 0.0)
    batch = scanner.batch(9)
    assert batch.payloads == THREE[2:]
    assert [at for at, _ in batch.damaged] == [AT[1]]
    reader.close()


def test_damage_in_an_own_segment_delays_nothing(tmp_path):
    """The frames of this process are complete as soon as they are there."""
    segment = create(tmp_path, THREE)
    segment.mapping[PAGE + 20] ^= 1
    payloads, damaged = read_all(segment)
    assert (payloads, [at for at, _ in damaged]) == (THREE[1:], [PAGE])


def test_a_frame_between_the_last_look_and_the_seal_is_read(tmp_path):
    """The look had read the zeros of the whole rest of the file."""
    segment = create(tmp_path, [b"0", b"1", b"2"])
    scanner = Scanner(segment, PAGE)
    assert scanner.batch(2).payloads == [b"0", b"1"]
    segment.write(frame(b"3"))
    segment.seal()
    assert scanner.batch(9).payloads == [b"2", b"3"]


class FailingDisk(Disk):
    """Fails at the read with this number, once."""

    reads = 0

    def read(self, fd, size, offset):
        self.reads -= 1
        if not self.reads:
            raise MemoryError
        return super().read(fd, size, offset)


@pytest.mark.parametrize("reads", range(1, 6))
def test_a_batch_whose_rest_could_not_be_read_is_read_again(tmp_path, reads):
    sent = [bytes([n]) * 100_000 for n in range(1, 31)]
    disk = FailingDisk()
    segment = Segment.adopt(orphan(tmp_path, sent, 3 * 1024 * 1024), disk)
    scanner = Scanner(segment, PAGE)
    disk.reads = reads
    with pytest.raises(MemoryError):
        scanner.batch(100)
    assert scanner.batch(100).payloads == sent
    segment.close()


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 900), min_size=1, max_size=40),
    damage=st.lists(
        st.tuples(st.integers(PAGE, SIZE - 1), st.binary(min_size=1, max_size=40)), max_size=4
    ),
    limit=st.integers(1, 50),
)
def test_whatever_the_damage_every_intact_record_is_delivered(
    tmp_path_factory, sizes, damage, limit
):
    """A record comes out exactly if none of its bytes was touched, and none comes out changed."""
    randomness = random.Random(1)
    payloads = [i.to_bytes(4, "big") + randomness.randbytes(n) for i, n in enumerate(sizes)]
    path = orphan(tmp_path_factory.mktemp("segment"), payloads)
    before = path.read_bytes()
    for offset, garbage in damage:
        overwrite(path, offset, garbage[: SIZE - offset])
    after = path.read_bytes()
    segment = Segment.adopt(path)
    read, _ = read_all(segment, limit)
    segment.close()
    intact, at = [], PAGE
    for payload in payloads:
        end = at + FRAME.size + len(payload)
        if before[at:end] == after[at:end]:
            intact.append(payload)
        at = end
    assert read == intact
