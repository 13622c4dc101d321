"""A capture that calls its own point: the call runs the bare function, and nothing emits twice."""

import contextlib
import threading

import pytest

import sidelight
from sidelight import arg, choose, emits, error, result
from sidelight.testing import capture


class Note:
    """Points that their own captures call, each in another way."""

    @emits("shown", who=arg.self)
    def __repr__(self):
        return "a note"

    @emits("compared", who=arg.self, other=arg.other)
    def __eq__(self, other):
        return True

    @emits(choose(arg.self, {1: "never"}, otherwise="hashed"))
    def __hash__(self):
        return 7

    @emits("summed", total=arg.self.total)
    def sum(self):
        return 3

    @property
    def total(self):
        return self.sum()

    @emits("called", value=lambda self: self.call())
    def call(self):
        return 4

    @emits("began", start="begins", value=arg.self.numbers)
    def count(self):
        yield 5

    @property
    def numbers(self):
        return list(self.count())

    @emits("described", value=result.described)
    def describe(self):
        return self

    @property
    def described(self):
        return str(self.describe().__class__.__name__)


class Refused(Exception):
    """An error whose text is a point that fails."""

    @emits(failure="not_told", why=error)
    def __str__(self):
        raise self


@pytest.mark.parametrize(
    ("call", "type_", "attributes"),
    [
        (repr, "shown", {"who": "a note"}),
        (lambda note: note == 1, "compared", {"who": "a note", "other": 1}),
        (hash, "hashed", {}),
        (Note.sum, "summed", {"total": 3}),
        (Note.call, "called", {"value": 4}),
        (lambda note: list(note.count()), "begins", {"value": [5]}),
        (lambda note: list(note.count()), "began", {"value": [5]}),
        (Note.describe, "described", {"value": "Note"}),
    ],
)
def test_one_call_is_one_event(call, type_, attributes):
    with capture() as recorded:
        call(Note())
    assert recorded.one(type_).attributes == attributes
    assert recorded.losses == {}


def test_an_error_whose_text_fails():
    with capture() as recorded, pytest.raises(Refused):
        str(Refused())
    assert recorded.types == ["not_told"]


def test_an_emission_whose_capture_emits():
    class Shown:
        def __repr__(self):
            sidelight.emit("shown", who=[self])
            return "it"

    with capture() as recorded:
        repr(Shown())
    assert [event.attributes["who"] for event in recorded] == ["<list>", ["it"]]


def test_points_that_capture_each_other_come_to_an_end():
    class Pair:
        @emits("first", other=arg.self.second)
        def first(self):
            return 1

        @property
        @emits("second", other=lambda self: self.first())
        def second(self):
            return 2

    with capture() as recorded:
        assert Pair().first() == 1
    assert recorded.types == ["second", "first"]


def test_another_thread_emits_during_a_capture():
    entered, seen = threading.Event(), threading.Event()

    class Slow:
        def __repr__(self):
            entered.set()
            assert seen.wait(60)
            return "slow"

    @emits("called", value=arg.value)
    def f(value):
        return value

    with capture() as recorded:
        thread = threading.Thread(target=f, args=(Slow(),))
        thread.start()
        assert entered.wait(60)
        f(1)
        seen.set()
        thread.join()
    assert [event.attributes["value"] for event in recorded] == [1, "slow"]


def test_a_capture_that_was_interrupted_leaves_the_point_at_work():
    class Odd:
        def __repr__(self):
            raise KeyboardInterrupt

    @emits("called", value=arg.value)
    def f(value):
        return value

    with capture(strict=False) as recorded:
        for value in (Odd(), 1, 2):
            with contextlib.suppress(KeyboardInterrupt):
                f(value)
    assert [event.attributes["value"] for event in recorded][-2:] == [1, 2]


def test_finalizers_that_run_during_a_capture_emit():
    class Dying:
        def __init__(self, *kept):
            self.kept = list(kept)

        @property
        def let_go(self):
            self.kept.clear()
            return "gone"

        @emits("died", last=arg.self.let_go)
        def __del__(self):
            pass

    with capture() as recorded:
        Dying(Dying(Dying()))
    assert recorded.types == ["died"] * 3
