"""Wrong arguments of the decorator fail at decoration; the error names function and remedy."""

import contextlib
import functools
import pickle

import click
import pytest

from sidelight import SidelightError, arg, choose, emit, emits, error, result
from sidelight.emission import EMITTER
from sidelight.exceptions import InstrumentationError, PointError, UnknownParameterError
from sidelight.testing import capture


def create_artifact(session, artifact_id, *, audio=None, **options):
    return None


def refused(*args, of=create_artifact, **kwargs):
    with pytest.raises(PointError) as caught:
        emits(*args, **kwargs)(of)
    return str(caught.value)


def test_a_parameter_misspelt():
    assert refused("received", artifact_id=arg.artefact_id) == (
        "create_artifact has no parameter artefact_id; did you mean artifact_id?"
    )


def test_a_parameter_that_is_like_none():
    def f(session, audio):
        return None

    assert refused("x", of=f, a=arg.zzz) == "f has no parameter zzz; it has session, audio"


def test_a_function_without_parameters():
    assert (
        refused("x", of=lambda: 1, a=arg.a) == "<lambda> has no parameter a; it takes no arguments"
    )


def test_a_parameter_that_comes_by_keyword():
    assert refused("x", a=arg.quality) == (
        "create_artifact has no parameter quality; "
        "for a key of **options, write arg.options['quality']"
    )


def test_a_method_is_named_with_its_class():
    with pytest.raises(UnknownParameterError, match=r"^Repository\.save has no parameter idd; did"):

        class Repository:
            @emits("saved", artifact_id=arg.idd)
            def save(self, id):
                return None


@pytest.mark.parametrize(
    "field",
    [lambda artefact_id: 1, functools.partial(lambda a, artefact_id: 1, 2), arg["artefact_id"]],
)
def test_every_way_to_name_a_parameter_is_checked(field):
    assert "has no parameter artefact_id; did you mean artifact_id?" in refused("x", a=field)


def test_in_choose_too():
    message = refused(choose(arg.artefact_id, {"a": "x"}))
    assert message == "create_artifact has no parameter artefact_id; did you mean artifact_id?"


@pytest.mark.parametrize("value", [1, [1]])  # with a list, no code waits for the first call
@pytest.mark.parametrize("of", [len, create_artifact, functools.partial(create_artifact, 1)])
def test_a_refused_decorator_leaves_no_point(of, value):
    known = dict(EMITTER.costs)
    refused("x", of=of, a=arg.zzz, other=value)
    refused("x", of=of, a=lambda zzz: 1, other=value)
    refused("x", of=of, a=error.code, other=value)
    refused(choose(arg.zzz, {1: "x"}), of=of, other=value)
    assert EMITTER.costs == known


def test_positions():
    assert refused("x", a=arg[2]).startswith(
        "create_artifact has no parameter [2]; it has session,"
    )
    assert refused("x", a=arg[-1]) == (
        "create_artifact: arg[-1] counts from the end; count from the front, or name the argument"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"mode": "sheduled"},
            "mode='sheduled' is not known; did you mean mode=\"scheduled\"?",
        ),
        ({"mode": "async"}, "mode='async' is not known; use 'scheduled' or 'awaited'"),
        ({"mode": None}, "mode=None is not known; use 'scheduled' or 'awaited'"),
        ({"mode": ["scheduled"]}, "mode=['scheduled'] is not known; use"),
        ({"span": "no"}, "span='no'; use span=True or span=False"),
        (
            {"transaction": arg.artifact_id, "mode": "awaited"},
            'transaction= cannot be mode="awaited": before the commit there is',
        ),
        (
            {"transaction": arg.artifact_id, "after_commit": arg.artifact_id},
            "transaction= and after_commit= are two ways; choose one",
        ),
        ({"strict": True}, "strict= goes with transaction=; name the transaction, or leave it out"),
        (
            {"after_commit": arg.artifact_id, "strict": True},
            "strict= goes with transaction=; name the transaction, or leave it out",
        ),
        ({"transaction": arg.artifact_id, "strict": "yes"}, "strict='yes'; use strict=True or"),
        *(
            (
                {way: "artifact_id"},
                f"{way}='artifact_id' is the alias of a Django database, not the parameter; name",
            )
            for way in ("transaction", "after_commit")
        ),
        (
            {"transaction": result.session},
            "transaction=result.session is not known before the call; name an argument",
        ),
        ({"transaktion": arg.artifact_id}, "did you mean transaction=?"),
        ({"event_id": "x"}, "event_id= is set by sidelight; call the attribute something else"),
        ({"type": "x"}, "give the type first, without a name"),
        ({"artefact_id": arg.artifact_id}, "artefact_id= is not known; did you mean artifact_id=?"),
        (
            {"organisation_id": "o1"},
            "organisation_id= is not known; did you mean organization_id=?",
        ),
        ({"failiure": "failed"}, "failiure= is not known; did you mean failure=?"),
        ({"note": object}, "<class 'object'> is a class; give its name, or a lambda that calls it"),
        ({"note": max}, "cannot tell the parameters of <built-in function max>; wrap it in a"),
        ({"note": open}, "has no parameter file; "),
        ({"note": NotImplemented}, "note=NotImplemented is nothing that can be recorded; give a"),
        ({"note": b"bytes"}, "note=b'bytes' is nothing that can be recorded; give a"),
        ({"tags": ["a", arg.session]}, "tags= has arg.session inside a list; give a callable that"),
        ({"tags": {"a": result.id}}, "tags= has result.id inside a dict; give a callable that"),
        ({"note": arg}, "arg alone captures nothing; name an argument: arg.NAME"),
        (
            {"note": lambda *args: 1},
            "callable takes *args, so its parameters have no names; name the",
        ),
        (
            {"note": lambda **all: 1},
            "callable takes *all, so its parameters have no names; name the",
        ),
        (
            {"code": error.code},
            "code=error.code is not known to the declared event (the positional",
        ),
        ({"code": lambda error: 1}, "code=<lambda> is not known to the declared event"),
    ],
)
def test_one_wrong_argument(arguments, message):
    told = refused("received", **arguments)
    assert told.startswith("create_artifact")
    assert message in told


def test_a_coroutine_function_as_a_field():
    async def fetch(session):
        return 1

    message = refused("x", a=fetch)
    assert "is a coroutine function; give one that returns the value" in message


@pytest.mark.parametrize(
    "type_",
    ["", "1st", "with space", "a" * 129, 7, b"x", arg.status, object()],
    ids=["empty", "digit", "space", "long", "int", "bytes", "expression", "object"],
)
@pytest.mark.parametrize("place", ["type", "start", "failure"])
def test_wrong_event_types(type_, place):
    told = refused(type_) if place == "type" else refused(**{place: type_})
    assert told.startswith("create_artifact: ")
    assert "choose(" in told


def test_no_event():
    assert refused() == (
        'create_artifact: no event is named; give a type: @emits("artifact_received")'
    )
    assert "no event is named" in refused(artifact_id=arg.artifact_id)


def test_choices():
    assert "choose() has no cases" in refused(choose(arg.session, {}))
    assert "is 'not a type'" in refused(choose(arg.session, {"a": "not a type"}))
    assert "is 5" in refused(choose(arg.session, {"a": 5}))
    assert "choose('status', …); choose by arg.NAME" in refused(choose("status", {"a": "b"}))


def test_what_is_known_only_later():
    assert refused(start="began", artifact_id=result.id) == (
        "create_artifact: artifact_id=result.id is not known to the declared event (start=, before "
        "the call); result goes with the positional type, error with failure="
    )
    assert "choose(result.x, …)" in refused(start=choose(result.x, {"a": "b"}))
    assert "choose(error.x, …)" in refused("ok", start=choose(error.x, {"a": "b"}), failure="no")


def test_what_one_of_several_events_knows_is_no_mistake():
    emits("ended", start="began", artifact_id=result.id)(create_artifact)
    emits("ended", failure="failed", code=error.code, id=result.id)(create_artifact)


def test_attributes_that_are_like_a_keyword_but_longer():
    emits("x", artifact_id_before=arg.artifact_id, failures=3, artifact_ids=["a"])(create_artifact)
    emits("x", artifact_id=arg.artifact_id, artefact_id="old")(create_artifact)


OPTIONS = ("start", "failure", "mode", "span", "strict", "transaction", "after_commit")


def test_attributes_may_be_called_as_options_are():
    with capture() as recorded:
        values = {name: arg.options[name] for name in OPTIONS}
        emits("booked", attributes={**values, "a b": 1})(create_artifact)(1, 2, mode="fast", span=9)
        emit("told", attributes={"mode": "fast"}, note=1)
    booked = dict.fromkeys(OPTIONS) | {"mode": "fast", "span": 9, "a b": 1}
    assert recorded.one("booked").attributes == booked
    assert recorded.one("told").attributes == {"note": 1, "mode": "fast"}


@pytest.mark.parametrize("name", ["mode", "span", "strict", "start", "failure"])
def test_an_option_that_was_meant_as_an_attribute(name):
    told = refused("booked", **{name: arg.options.x})
    assert told.endswith(f'for an attribute: attributes={{"{name}": …}}')


#: Arguments that `emits` and `emit` refuse alike, and what both say.
BOTH = [
    (("",), {}, "the event type is ''; use a name of letters"),
    (("a b",), {}, "the event type is 'a b'; use a name of letters"),
    (("y" * 300,), {}, "the event type is 'yyy"),
    (("x",), {"mode": "awiated"}, "mode='awiated' is not known; did you mean mode=\"awaited\"?"),
    (("x",), {"mode": ["awaited"]}, "mode=['awaited'] is not known; use"),
    (("x",), {"artefact_id": 1}, "artefact_id= is not known; did you mean artifact_id=?"),
    (("x",), {"point": 1}, "point= is set by sidelight; call the attribute something else"),
    (("x",), {"failed": "y"}, "failed='y' is not known; did you mean failure=?"),
    (("x",), {"strict": True}, "strict= goes with transaction=; name the transaction"),
    (("x",), {"strict": "yes"}, "strict='yes'; use strict=True or strict=False"),
    (("x",), {"attributes": ["a"]}, "attributes=['a'] is no mapping; write {"),
    (("x",), {"attributes": {1: 2}}, "attributes= has the name 1; give a text"),
    (("x",), {"attributes": {"a": 1}, "a": 2}, "a is given twice, also in attributes="),
    (("x",), {"attributes": {"artifact_id": 1}}, "attributes= has artifact_id; give artifact_id="),
    (("x",), {"attributes": {"type": 1}}, "type= is set by sidelight"),
]


@pytest.mark.parametrize(("given", "named", "message"), BOTH, ids=str)
def test_emits_and_emit_refuse_alike(given, named, message):
    assert f"create_artifact: {message}" in refused(*given, **named)
    with capture(strict=False) as recorded:
        assert emit(*given, **named).state == "lost"
    assert (recorded.losses, recorded.types) == ({"emit refused": 1}, [])
    with capture(), pytest.raises(InstrumentationError, match="emit refused") as caught:
        emit(*given, **named)
    assert f"emit: {message}"[:60] in str(caught.value)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (("y" * 300,), {}),
        ((["y"] * 300,), {}),
        (("x",), {"mode": "y" * 300}),
        (("x",), {"strict": ["y"] * 300}),
        (("x",), {"attributes": ["y"] * 300}),
        (("x",), {"failed": "y" * 300}),
        (("x",), {"attributes": {("y",) * 300: 1}}),
    ],
    ids=str,
)
def test_a_refusal_shows_the_beginning_of_a_long_value(given, named):
    assert refused(*given, **named).count("y") < 80
    with capture(), pytest.raises(InstrumentationError) as caught:
        emit(*given, **named)
    assert "…" in str(caught.value)
    assert str(caught.value).count("y") < 160


def test_what_emit_alone_refuses():
    class Session:
        pass

    for named in (
        {"transaction": Session(), "after_commit": Session()},
        {"transaction": Session(), "mode": "awaited"},
        {"artifact_id": arg.artifact_id},
        {"note": result},
    ):
        with capture(strict=False) as recorded:
            assert emit("x", **named).state == "lost"
        assert recorded.losses == {"emit refused": 1}


# -- what cannot be decorated ---------------------------------------------------------------------


def test_without_parentheses():
    message = (
        "create_artifact: @emits names no event; "
        'write it in parentheses: @emits("artifact_received")'
    )
    with pytest.raises(PointError) as caught:
        emits(create_artifact)
    assert str(caught.value) == message


class Thing:
    @property
    def size(self):
        return 1

    @functools.cached_property
    def weight(self):
        return 1


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (Thing, "Thing: it is a class; decorate its methods"),
        (vars(Thing)["size"], "Thing.size: it is a property; put @emits under @property"),
        (vars(Thing)["weight"], "Thing.weight: it is a property; put @emits under @property"),
        (5, "int: it cannot be called; decorate a function"),
        (None, "NoneType: it cannot be called; decorate a function"),
    ],
    ids=["class", "property", "cached_property", "number", "None"],
)
def test_what_cannot_be_decorated(what, message):
    assert refused("x", of=what) == message


# -- the errors themselves ------------------------------------------------------------------------


def test_errors_have_one_base_and_say_what_they_are():
    assert issubclass(PointError, SidelightError)
    assert issubclass(PointError, TypeError)
    assert issubclass(InstrumentationError, SidelightError)


@pytest.mark.parametrize(
    "problem",
    [
        PointError(function="f", problem="{odd} %s", remedy="do"),
        UnknownParameterError("f", "nmae", ["name"]),
        InstrumentationError(point="m:f", reason="r", problem="p"),
    ],
)
def test_errors_cross_to_other_processes(problem):
    again = pickle.loads(pickle.dumps(problem))
    assert type(again) is type(problem)
    assert str(again) == str(problem)


def passing(function):
    @functools.wraps(function)
    def inner(*args):
        return function(*args)

    return inner


def test_a_decorator_around_a_context_manager():
    @passing
    @contextlib.contextmanager
    def manage():
        yield

    assert refused("x", of=manage) == (
        "test_a_decorator_around_a_context_manager.<locals>.manage: a decorator stands between"
        " @emits and a context manager; put @emits below @contextmanager"
    ).replace("test_a_decorator_around_a_context_manager.<locals>.", "")


def _click_command():
    return click.command()(work)


def _click_group():
    return click.group()(work)


def _celery_task():
    return pytest.importorskip("celery").Celery("shop").task(work)


def _shared_task():
    return pytest.importorskip("celery").shared_task(work)


def _pytest_fixture():
    return pytest.fixture(work)


def work():
    return None


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (_click_command, "a command of click"),
        (_click_group, "a command of click"),
        (_celery_task, "a task of Celery"),
        (_shared_task, "a task of Celery"),
        (_pytest_fixture, "a fixture of pytest"),
    ],
)
def test_objects_of_frameworks(make, told):
    message = refused("worked", of=make())
    assert message.endswith(
        f": it is {told}, which calls the function past @emits; put @emits below that decorator"
    )
    if make is not _pytest_fixture:
        assert message.startswith("work: ")
