"""The geometry of the pictures."""

from sidelight.page.picture import WIDTH, bars_of, flow_of, main_way, rate_of, spread_of
from sidelight.store import Event, Latency

SECOND = 1_000_000_000


def event(
    type_: str,
    at: float,
    took: float | None = None,
    outcome="succeeded",
    artifact="a",
    span=None,
    point=None,
):
    """An event ``at`` seconds after the beginning."""
    return Event(
        event_id=f"{at:015.6f}{type_}",
        type=type_,
        artifact_id=artifact,
        organization_id=None,
        occurred_ns=round(at * SECOND),
        recorded_ns=round(at * SECOND),
        point=point or f"m:{type_}",
        mode="scheduled",
        outcome=outcome,
        duration_ns=None if took is None else round(took * SECOND),
        trace_id="t" if span else None,
        span_id=span,
        attributes={},
    )


def test_bars_are_nested_in_the_calls_around_them():
    inner, outer = event("inner", 3, 1), event("outer", 4, 3)
    bars = {bar.event.type: bar for bar in bars_of([inner, outer])}
    assert (bars["outer"].depth, bars["inner"].depth) == (0, 1)
    assert (bars["outer"].left, bars["outer"].width) == (0, WIDTH)
    assert (bars["inner"].left, bars["inner"].width) == (333, 334)


def test_a_call_without_an_end_is_open_and_a_long_pause_is_cut():
    started = event("started", 0, outcome="started", span="s")
    bars = bars_of([started, event("ended", 1, 1, span="s"), event("late", 1000, 0.1)])
    assert [bar.is_open for bar in bars] == [True, False, False]
    assert bars[2].pause == "16 min 39 s"
    assert all(bar.left >= 0 and bar.left + bar.width <= WIDTH for bar in bars)
    assert bars_of([]) == []


def test_a_short_call_stays_short_beside_a_pause_that_is_cut():
    """Else a call of a microsecond fills the picture of a life of seconds."""
    for took in (721e-9, 50e-6, 0.001, 0.005):
        bars = bars_of([event("made", 1, took), event("noted", 3), event("sent", 5.18, took)])
        assert [bool(bar.pause) for bar in bars] == [False, True, True]
        assert all(bar.width <= max(4, WIDTH * took / 0.02) for bar in bars)
        assert bars[0].left < WIDTH * 0.1 < WIDTH * 0.3 < bars[1].left < WIDTH * 0.7


def test_pauses_below_a_tenth_of_a_second_are_not_cut():
    bars = bars_of([event("made", 1, 721e-9), event("noted", 1.09), event("sent", 1.1)])
    assert [bar.pause for bar in bars] == ["", "", ""]
    assert [bar.left for bar in bars] == [0, 900, WIDTH - 4]


def test_events_per_minute_add_up():
    events = [event(f"t{n % 9}", n) for n in range(300)]
    rate = rate_of(events, 300 * SECOND, 60)
    assert sum(sum(pieces) for _, pieces in rate.columns) == 300
    assert (len(rate.columns), len(rate.types), rate.types[-1]) == (60, 6, "other")
    assert rate.highest == 60


def test_a_flow_counts_each_step_and_finds_the_usual_way():
    events = []
    for n in range(10):
        events += [event("begun", n, artifact=f"{n}"), event("middle", n + 2, artifact=f"{n}")]
        events.append(event("done" if n else "failed", n + 5, artifact=f"{n}"))
    flow = flow_of(events[::-1])
    assert flow.artifacts == 10
    assert [*flow.types][:2] == ["begun", "middle"]
    steps = {(step.start, step.end): (step.count, step.median_ns) for step in flow.steps}
    assert steps == {
        ("begun", "middle"): (10, 2 * SECOND),
        ("middle", "done"): (9, 3 * SECOND),
        ("middle", "failed"): (1, 3 * SECOND),
    }
    assert main_way(flow) == [["begun"], ["middle"], ["done"]]
    assert main_way(flow_of([])) == []
    # Artifacts whose beginnings are older than the events that were read.
    cut = flow_of([*events, *(event("done", n, artifact=f"old{n}") for n in range(30))])
    assert main_way(cut) == [["begun"], ["middle"], ["done"]]
    assert (cut.types["done"], [*cut.types][:2]) == (39, ["begun", "middle"])


def test_latencies_lie_on_one_logarithmic_axis():
    def latency(*ns: int) -> Latency:
        p50, p90, p99, longest = ns
        return Latency(
            arrived=9,
            waiting=0,
            waiting_since=None,
            p50_ns=p50,
            p90_ns=p90,
            p99_ns=p99,
            max_ns=longest,
        )

    none = Latency(
        arrived=0, waiting=4, waiting_since=None, p50_ns=None, p90_ns=None, p99_ns=None, max_ns=None
    )
    slow, nothing, quick = spread_of(
        [latency(10**6, 10**7, 10**8, 10**9), none, latency(10**3, 10**3, 10**3, 10**3)]
    )
    assert quick == (0, 0, 0, 0)
    assert nothing is None
    assert slow == (498, 664, 830, 996)
    assert spread_of([latency(0, 0, 0, 0)]) == [(0, 0, 0, 0)]


def test_the_usual_way_has_all_that_one_call_may_emit():
    """Types that it emits one after the other, on failure, or by `emit` are steps of their own."""
    events = []
    for n in range(10):
        at = {"artifact": f"{n}"}
        events += [event("ordered", n, **at), event("begun", n + 1, point="m:send", **at)]
        sent = "flown" if n % 3 else "shipped"
        if n == 9:
            events.append(event("stuck", n + 2, outcome="failed", point="m:send", **at))
            continue
        events.append(event(sent, n + 2, point="m:send", **at))
        noted = "paid" if n % 2 else "owed"
        events.append(event(noted, n + 3, outcome="emitted", point="sidelight:emit", **at))
    assert main_way(flow_of(events)) == [["ordered"], ["begun"], ["flown", "shipped"], ["owed"]]
