"""What is whole in a damaged stretch is found, and nothing else."""

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidelight.record import FRAME, Static, decode, encode, encode_static, frame, salvage

HEAD = encode_static(Static("order_packed", "shop:pack", "scheduled", "succeeded", "pack"))


def payload(n, size=3):
    attributes = {"note": "x" * size}
    moment = (
        1_800_000_000_000_000_000,
        n,
        f"order-{n}",
        None,
        n,
        bytes(16),
        1,
        0,
        1,
        attributes,
        None,
    )
    return HEAD + encode(moment)


def found(stretch):
    return [stretch[start:end] for start, end in salvage(stretch)]


@pytest.mark.parametrize("bit", range(32))
def test_a_record_whose_magic_was_hit(bit):
    stretch = bytearray(frame(payload(1)))
    stretch[bit // 8] ^= 1 << bit % 8
    assert found(bytes(stretch)) == [payload(1)]


@pytest.mark.parametrize("bit", range(32, 64))
def test_a_record_whose_length_was_hit(bit):
    whole = payload(1)
    stretch = bytearray(frame(whole))
    stretch[bit // 8] ^= 1 << bit % 8
    assert found(bytes(stretch)) == [whole]


@pytest.mark.parametrize("bit", [*range(64, 96), *range(200, 240)])
def test_a_record_whose_checksum_does_not_agree_is_none(bit):
    stretch = bytearray(frame(payload(1)))
    stretch[bit // 8] ^= 1 << bit % 8
    assert found(bytes(stretch)) == []


def test_one_that_is_cut_short_is_none():
    stretch = frame(payload(1))
    for end in range(len(stretch)):
        assert found(stretch[:end]) == []


def test_several_behind_each_other():
    wholes = [payload(n, 40 * n) for n in range(5)]
    frames = [b"zzzz" + frame(whole)[4:] for whole in wholes]
    assert found(b"".join(frames)) == wholes
    assert found(b"junk".join(frames)) == wholes


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.integers(0, 50).map(lambda n: b"zzzz" + frame(payload(n, n))[4:]),
            st.integers(0, 50).map(lambda n: HEAD[:n]),
        ),
        max_size=12,
    )
)
@example([HEAD, HEAD])
def test_whatever_lies_around_it(pieces):
    stretch = b"".join(pieces)
    for start, end in salvage(stretch):
        assert decode(stretch[start:end])
        assert stretch[start - FRAME.size + 4 : end] == frame(stretch[start:end])[4:]
    whole = [piece for piece in pieces if piece.startswith(b"zzzz")]
    assert len(found(stretch)) == len(whole)


def test_megabytes_of_records_that_were_hit_are_searched_in_seconds():
    hit = bytearray(frame(payload(1)))
    hit[-5] ^= 1
    stretch = bytes(hit) * (8 * 1024 * 1024 // len(hit))
    began = time.process_time()
    assert found(stretch) == []
    assert time.process_time() - began < 10
