"""A value whose own code takes its time costs it a few times, and no more."""

import collections.abc
import time

import pytest

from sidelight import emits
from sidelight.record.values import MAX_TEXT, error_message, plain
from sidelight.testing import capture


def slow(seconds, base=object):
    """A class that takes so long to say what it is."""

    class Slow(base):
        asked = 0

        def say(self, *_):
            type(self).asked += 1
            time.sleep(seconds)
            return "told"

        __repr__ = __str__ = say

    return Slow


def test_a_slow_repr_is_not_asked_again_and_again():
    kind = slow(0.006)
    told = [plain({"deep": [kind()]})["deep"][0] for _ in range(10)]
    assert told == ["told"] * 3 + ["<Slow: too slow to read>"] * 7
    assert kind.asked == 3
    assert plain(slow(0.0)()) == "told"  # another class of the same name


def test_a_repr_that_is_slow_now_and_then_is_asked_still():
    kind = slow(0.0)
    for seconds in (0.006, 0.006, 0.0) * 3:
        kind.__repr__ = lambda self, seconds=seconds: time.sleep(seconds) or "told"
        assert plain(kind()) == "told"


def test_a_slow_repr_that_raises_counts_as_well():
    kind = slow(0.0)

    def hesitate(self):
        time.sleep(0.006)
        raise ValueError

    kind.__repr__ = hesitate
    told = [plain(kind()) for _ in range(4)]
    assert told == ["<Slow: ValueError while it was captured>"] * 3 + ["<Slow: too slow to read>"]


def test_a_slow_mapping_is_not_asked_again_and_again():
    class Lazy(collections.abc.Mapping):
        def __getitem__(self, key):
            time.sleep(0.006)
            return 1

        def __iter__(self):
            return iter("a")

        def __len__(self):
            return 1

    told = [plain(Lazy()) for _ in range(4)]
    assert told == [{"a": 1}] * 3 + ["<Lazy: too slow to read>"]


def test_a_slow_error_message_is_not_asked_again_and_again():
    kind = slow(0.006, Exception)

    @emits(failure="failed")
    def fail():
        raise kind

    with capture() as recorded:
        for _ in range(4):
            with pytest.raises(kind):
                fail()
    told = [event.error_message for event in recorded]
    assert told == ["told"] * 3 + ["<Slow: too slow to read>"]


GIGABYTE = 1 << 28
LONG = {
    "one": ValueError,
    "key": KeyError,
    "several": lambda text: ValueError("code", text, 3),
    "bytes": lambda text: ValueError(1, text.encode()),
}


@pytest.mark.parametrize("make", LONG.values(), ids=LONG)
def test_errors_about_something_large(make):
    """Large next to nothing: its text is never made."""
    error = make("x" * GIGABYTE)
    begun = time.perf_counter()
    told = error_message(error)
    assert time.perf_counter() - begun < 0.05
    assert "xxx" in told
    assert len(told) <= MAX_TEXT


@pytest.mark.parametrize(
    "error",
    [
        ValueError(),
        ValueError("v"),
        ValueError("v", 1),
        KeyError("k"),
        KeyError("k", 2),
        KeyError(),
        OSError(2, "no such file", "name"),
        UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"),
        ExceptionGroup("several", [ValueError("v")]),
        StopIteration(5),
    ],
    ids=repr,
)
def test_errors_say_what_they_say(error):
    assert error_message(error) == str(error)
