"""`bind` and what inherits it: attributes, threads, pools, other processes."""

import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest
from opentelemetry import trace

import sidelight
from sidelight import arg, bind, emits, with_context
from sidelight.exceptions import PointError
from sidelight.testing import capture


@pytest.fixture
def recorded():
    with capture() as recorded:
        yield recorded


@emits("worked", failure="not_worked", n=arg.n)
def work(n):
    """Work."""
    return sidelight.emit("inside", n=n).event_id and n


def attributes(recorded):
    return [(event.type, event.artifact_id, event.attributes) for event in recorded]


def test_attributes_are_added_to_every_event(recorded):
    with bind(artifact_id="a1", request_id="r1", attributes={"http.route": "/"}):
        work(1)
        with bind(request_id="r2", attempt=2), pytest.raises(PointError):
            emits("failed", failure="failed", n=arg.n, request_id="own")(raising)(3)
    work(4)
    outer, inner = {"request_id": "r1", "http.route": "/"}, {"http.route": "/", "attempt": 2}
    assert attributes(recorded) == [
        ("inside", "a1", {**outer, "n": 1}),
        ("worked", "a1", {**outer, "n": 1}),
        ("failed", "a1", {**inner, "n": 3, "request_id": "own"}),
        ("inside", None, {"n": 4}),
        ("worked", None, {"n": 4}),
    ]


def raising(n):
    raise PointError(function="f", problem="p", remedy="r")


def test_values_are_plain_once_and_belong_to_the_block(recorded):
    tags = ["a"]
    with bind(tags=tags):
        tags.append("b")
        sidelight.emit("told")
    assert recorded.one().attributes == {"tags": ["a"]}


@pytest.mark.parametrize("name", ["event_id", "type", "outcome"])
def test_names_that_sidelight_sets_are_refused(name):
    with pytest.raises(PointError, match=f"bind: {name}= is set by sidelight"):
        bind(**{name: 1})


def test_a_thread_of_a_pool_inherits_on_request(recorded):
    with ThreadPoolExecutor(2) as pool, bind(artifact_id="a1", request_id="r1"):
        plain = list(pool.map(work, [1, 2]))
        inherited = list(pool.map(with_context(work), [3, 4, 5, 6]))
        assert pool.submit(with_context(work), 7).result() == 7
    assert (plain, inherited) == ([1, 2], [3, 4, 5, 6])
    found = {(e.attributes["n"], e.artifact_id, e.attributes.get("request_id")) for e in recorded}
    assert found == {
        *((n, None, None) for n in (1, 2)),
        *((n, "a1", "r1") for n in (3, 4, 5, 6, 7)),
    }


def test_the_present_span_is_the_parent_in_the_thread(recorded):
    @emits("outer")
    def outer():
        with ThreadPoolExecutor(1) as pool:
            pool.submit(with_context(work), 1).result()

    outer()
    spans = {span.name.rpartition(".")[2]: span for span in recorded.spans}
    assert spans["work"].parent_id == spans["outer"].span_id
    assert spans["work"].trace_id == spans["outer"].trace_id


def test_the_function_looks_like_itself():
    carried = with_context(work)
    assert (carried.__name__, carried.__doc__, carried.__wrapped__) == ("work", "Work.", work)
    with bind(artifact_id="a1", request_id="r1"):
        assert pickle.loads(pickle.dumps(with_context(work)))(1) == 1


def in_the_child(n):
    with capture() as recorded:
        work(n)
        context = trace.get_current_span().get_span_context()
    return attributes(recorded), f"{context.trace_id:032x}", recorded.spans[0].parent_id


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_another_process_has_what_is_bound_and_a_remote_parent(recorded, method):
    context = multiprocessing.get_context(method)

    @emits("outer")
    def outer():
        with (
            bind(artifact_id="a1", request_id="r1"),
            ProcessPoolExecutor(1, mp_context=context) as pool,
        ):
            return pool.submit(with_context(in_the_child), 1).result(120)

    found, trace_id, parent_id = outer()
    given = {"request_id": "r1", "n": 1}
    assert found == [("inside", "a1", given), ("worked", "a1", given)]
    assert (trace_id, parent_id) == (recorded.spans[0].trace_id, recorded.spans[0].span_id)


async def coroutine():
    pass


def generator():
    yield


@pytest.mark.parametrize("function", [coroutine, generator])
def test_functions_whose_body_runs_later_are_refused(function):
    with pytest.raises(PointError, match="its body does not run in the call; start a task"):
        with_context(function)
