"""An event's id is a UUIDv7 of its time and its random bits."""

from uuid import RFC_4122, UUID

from hypothesis import given
from hypothesis import strategies as st

from sidelight.record import event_id

MILLISECOND = 1_000_000
TIMES = st.integers(0, (1 << 48) * MILLISECOND - 1)


@given(TIMES, st.integers(0, (1 << 64) - 1))
def test_an_id_holds_the_time_and_the_random_bits(time, random):
    found = UUID(event_id(time, random))

    assert str(found) == event_id(time, random)
    assert (found.version, found.variant) == (7, RFC_4122)
    assert found.int >> 80 == time // MILLISECOND
    assert found.int >> 64 & 0xFFF == (time % MILLISECOND << 12) // MILLISECOND
    assert found.int & (1 << 62) - 1 == random & (1 << 62) - 1


@given(st.lists(TIMES, min_size=2), st.integers(0, (1 << 62) - 1))
def test_the_order_of_ids_is_the_order_of_time(times, random):
    ids = [event_id(time, random) for time in sorted(times)]

    assert ids == sorted(ids)
