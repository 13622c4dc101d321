"""A class whose code is slow is read three times in a row, and then no more."""

import collections.abc
import time

import pytest

from sidelight import emits
from sidelight.record import MAX_TEXT, error_message, plain, values
from sidelight.testing import capture

SLOW, FAST = values.MAX_REPR_NS + 1, 0


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """A clock (ns) that only the slow code moves."""
    clock = Clock()
    monkeypatch.setattr(values, "_clock", lambda: clock.now)
    return clock


class Clock:
    now = 0

    def sleep(self, ns):
        self.now += ns


@pytest.fixture
def slow(clock):
    """Makes classes whose `repr` and `str` take so long, and may raise."""

    def made(*ns, base=object, error=None):
        durations = iter(ns * 100)

        class Slow(base):
            calls = 0

            def say(self, *_):
                type(self).calls += 1
                clock.sleep(next(durations))
                if error is not None:
                    raise error
                return "said"

            __repr__ = __str__ = say

        return Slow

    return made


def test_a_slow_repr_is_called_three_times(slow):
    kind = slow(SLOW)
    copies = [plain({"deep": [kind()]})["deep"][0] for _ in range(10)]
    assert copies == ["said"] * 3 + ["<Slow: too slow to read>"] * 7
    assert kind.calls == 3
    assert plain(slow(FAST)()) == "said"  # another class of the same name


def test_a_repr_that_is_fast_in_between_is_called_on(slow):
    kind = slow(SLOW, SLOW, FAST)
    assert [plain(kind()) for _ in range(9)] == ["said"] * 9


def test_a_slow_repr_that_raises_counts_too(slow):
    kind = slow(SLOW, error=ValueError)
    copies = [plain(kind()) for _ in range(4)]
    assert copies == ["<Slow: ValueError while it was captured>"] * 3 + ["<Slow: too slow to read>"]


def test_a_slow_mapping_is_read_three_times(clock):
    class Lazy(collections.abc.Mapping):
        def __getitem__(self, key):
            clock.sleep(SLOW)
            return 1

        def __iter__(self):
            return iter("a")

        def __len__(self):
            return 1

    copies = [plain(Lazy()) for _ in range(4)]
    assert copies == [{"a": 1}] * 3 + ["<Lazy: too slow to read>"]


def test_a_slow_error_message_is_read_three_times(slow):
    kind = slow(SLOW, base=Exception)

    @emits(failure="failed")
    def fail():
        raise kind

    with capture() as recorded:
        for _ in range(4):
            with pytest.raises(kind):
                fail()
    messages = [event.error_message for event in recorded]
    assert messages == ["said"] * 3 + ["<Slow: too slow to read>"]


LARGE = 1 << 28
LONG = {
    "one": ValueError,
    "key": KeyError,
    "several": lambda text: ValueError("code", text, 3),
    "bytes": lambda text: ValueError(1, text.encode()),
}


@pytest.mark.parametrize("make", LONG.values(), ids=LONG)
def test_the_message_of_an_error_with_a_large_argument_is_cut_first(make):
    """The whole text is never made: that would take longer than to make the argument."""
    begun = time.thread_time()
    error = make("x" * LARGE)
    made = time.thread_time()
    message = error_message(error)
    assert time.thread_time() - made < (made - begun) / 2
    assert "xxx" in message
    assert len(message) <= MAX_TEXT


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
def test_the_message_is_the_text_of_the_error(error):
    assert error_message(error) == str(error)
