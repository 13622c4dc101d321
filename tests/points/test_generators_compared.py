"""Whatever its consumer does, a decorated generator answers as the undecorated one.

Hypothesis writes a generator's body as a list of steps and its consumer as a list of calls; both
are run with and without the decorator, and the two protocols must be the same.
"""

import types

from hypothesis import given, settings
from hypothesis import strategies as st

from sidelight import arg, emits, result
from sidelight.testing import capture


class Thrown(Exception):
    pass


class ThrownBase(BaseException):
    pass


ERRORS = [Thrown, ThrownBase, ValueError, GeneratorExit, StopIteration, StopAsyncIteration]
ANSWERS = ["pass on", "swallow", "replace", "return", "yield", "pass on after yield", "raise from"]

#: A step yields, and answers what is thrown in; or it ends the body.
steps = st.lists(
    st.one_of(
        st.tuples(st.just("yield"), st.integers(0, 9), st.sampled_from(ANSWERS)),
        st.tuples(st.just("await"), st.integers(0, 2), st.just("")),
        st.tuples(st.just("return"), st.integers(0, 9), st.just("")),
        st.tuples(st.just("raise"), st.sampled_from(range(len(ERRORS))), st.just("")),
    ),
    max_size=5,
)
calls = st.lists(
    st.one_of(
        st.just(("next", None)),
        st.tuples(st.just("send"), st.integers(10, 19)),
        st.tuples(st.just("throw"), st.sampled_from(range(len(ERRORS)))),
        st.tuples(st.just("throw class"), st.sampled_from(range(len(ERRORS)))),
        st.just(("close", None)),
        st.just(("leave", None)),
    ),
    max_size=8,
)


def told(error):
    """An exception as far as two runs can have it in common."""
    if error is None:
        return None
    return (
        type(error).__name__,
        [str(each) for each in error.args],
        told(error.__cause__),
        told(error.__context__),
        error.__suppress_context__,
    )


def body(script, log):
    for kind, value, answer in script:
        if kind == "await":
            continue
        if kind == "return":
            return value
        if kind == "raise":
            raise ERRORS[value](f"of the body {value}")
        try:
            log.append(("received", (yield value)))
        except BaseException as error:
            log.append(("caught", told(error)))
            if answer == "pass on":
                raise
            if answer == "replace":
                raise Thrown("instead")  # noqa: B904
            if answer == "raise from":
                raise Thrown("because") from error
            if answer == "return":
                return value
            if answer == "yield":
                log.append(("received late", (yield -value)))
            if answer == "pass on after yield":
                yield -value
                raise
        finally:
            log.append("finally")
    return "end"


async def async_body(script, log):
    for kind, value, answer in script:
        if kind == "await":
            for _ in range(value):
                await suspension("of the body")
            continue
        if kind == "return":
            return
        if kind == "raise":
            raise ERRORS[value](f"of the body {value}")
        try:
            log.append(("received", (yield value)))
        except BaseException as error:
            log.append(("caught", told(error)))
            if answer == "pass on":
                raise
            if answer == "replace":
                raise Thrown("instead")  # noqa: B904
            if answer == "raise from":
                raise Thrown("because") from error
            if answer == "return":
                return
            if answer == "yield":
                log.append(("received late", (yield -value)))
            if answer == "pass on after yield":
                yield -value
                raise
        finally:
            await suspension("finally")
            log.append("finally")


@types.coroutine
def suspension(value):
    return (yield value)


def consume(make, script, actions):
    """The protocol of one run: what each call gave back or raised, and what the body saw."""
    log = []
    generator = make(script, log)
    for action, value in actions:
        try:
            match action:
                case "next":
                    log.append(("gave", next(generator)))
                case "send":
                    log.append(("gave", generator.send(value)))
                case "throw":
                    log.append(("gave", generator.throw(ERRORS[value]("in"))))
                case "throw class":
                    log.append(("gave", generator.throw(ERRORS[value])))
                case "close":
                    log.append(("closed", generator.close()))
        except BaseException as error:
            log.append(("raised", told(error), getattr(error, "value", None)))
    finish(generator, log)
    return log


def finish(generator, log):
    """End what is left, so that nothing is said when it is collected."""
    for _ in range(20):
        try:
            next(generator)
        except StopIteration:
            return
        except BaseException as error:
            log.append(("raised at last", told(error)))
            return


def consume_async(make, script, actions):
    """The same for an async generator, driven by hand."""
    log = []
    generator = make(script, log)
    for action, value in actions:
        try:
            match action:
                case "next":
                    awaitable = generator.__anext__()
                case "send":
                    awaitable = generator.asend(value)
                case "throw":
                    awaitable = generator.athrow(ERRORS[value]("in"))
                case "throw class":
                    awaitable = generator.athrow(ERRORS[value])
                case "close":
                    awaitable = generator.aclose()
                case "leave":
                    awaitable = generator.asend(None)
            drive(awaitable, log, give_up=action == "leave")
        except BaseException as error:
            log.append(("raised", told(error)))
    for _ in range(20):
        try:
            drive(generator.__anext__(), log)
        except StopAsyncIteration:
            break
        except BaseException as error:
            log.append(("raised at last", told(error)))
            break
    return log


def drive(awaitable, log, *, give_up=False):
    """Run an awaitable to its end; with ``give_up`` throw an error in where it waits first."""
    steps = awaitable.__await__()
    sent = 0
    try:
        log.append(("suspended", steps.send(None)))
        if give_up:
            log.append(("suspended", steps.throw(Thrown("given up"))))
        while True:
            sent += 1
            log.append(("suspended", steps.send(sent)))
    except StopIteration as stop:
        log.append(("gave", stop.value))


decorated = {
    "with a span": emits("done", start="began", failure="failed", script=arg[0])(body),
    "without": emits("done", failure="failed", result=result, span=False)(body),
}
async_decorated = {
    "with a span": emits("done", start="began", failure="failed", script=arg[0])(async_body),
    "without": emits("done", failure="failed", span=False)(async_body),
}


@settings(max_examples=150, deadline=None)
@given(steps, calls)
def test_generators(script, actions):
    plain = consume(body, script, actions)
    with capture() as recorded:
        for function in decorated.values():
            assert consume(function, script, actions) == plain
    assert len(recorded.spans) <= 1


@settings(max_examples=150, deadline=None)
@given(steps, calls)
def test_async_generators(script, actions):
    plain = consume_async(async_body, script, actions)
    with capture() as recorded:
        for function in async_decorated.values():
            assert consume_async(function, script, actions) == plain
    assert len(recorded.spans) <= 1
