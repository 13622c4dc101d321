"""Filters, `latency` and `funnel` on the command line; records that still wait in the spool."""

import re
import signal

import pytest
from tests.support.commands import KILLED, TWO_ORDERS, emit, of, sidelight
from tests.support.simulated import records_of, simulate, with_fate
from tests.support.stored import BACKENDS, batches_of, store

from sidelight import Store

LIVES = simulate(60)
COMPLETED = sum(life.completed is not None for life in LIVES)
FAILURES = sum(life.failures for life in LIVES)
STARTED = sum(life.fate != "stuck" for life in LIVES)


def count(fate):
    return sum(1 for _ in with_fate(LIVES, fate))


@pytest.fixture(scope="module", params=sorted(BACKENDS))
def filled(request, tmp_path_factory):
    url = BACKENDS[request.param](tmp_path_factory.mktemp("filled"))
    store(url, *batches_of(records_of(LIVES), 500))
    return url


def json_of(*arguments):
    said = sidelight(*arguments, "--json")
    assert (said.code, said.err) == (0, "")
    return said.json


# -- filters -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "number"),
    [
        (["--failed"], FAILURES),
        (["--outcome", "failed", "--outcome", "started"], FAILURES + STARTED),
        (["--where", "words>=0"], 60 + count("rerun")),
        (["--where", "words<0"], 0),
        (["--failed", "--where", "error.type=OSError"], count("failed_late")),
        (["--point", "shop.work:completed"], COMPLETED),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_filters(filled, options, number):
    assert len(json_of("events", *options, *of(filled))) == number
    counted = json_of("counts", *options, "--by", "type", *of(filled))
    assert sum(each["count"] for each in counted) == number


def test_a_timeline_is_filtered(filled):
    life = next(with_fate(LIVES, "rerun"))
    found = json_of("timeline", life.artifact, "--failed", *of(filled))
    assert [event["type"] for event in found] == ["failed"]
    received = json_of("timeline", life.artifact, "--where", "words>=0", *of(filled))
    assert [event["type"] for event in received] == ["received"] * 2


def test_a_bad_filter_is_explained(filled):
    for command in (["events"], ["counts"], ["latency", "a", "b"], ["funnel", "a"], ["tail"]):
        said = sidelight(*command, "--where", "words", *of(filled))
        assert said.code == 2
        assert "where: 'words' is no condition; write name=value" in said.err


def test_a_search_that_its_time_limit_ends_says_so(filled, monkeypatch):
    monkeypatch.setattr("sidelight.store.selection._FIRST_WINDOW", 20)
    limit = ["--time-limit", "0"]
    said = sidelight("events", "--failed", *limit, *of(filled))
    assert re.search(
        r"not all events before 2026-07-25 \S+ UTC were examined; --time-limit", said.err
    )
    said = sidelight("events", "--failed", "--json", *limit, *of(filled))
    assert re.search(r"not all events from 2026-07-25 \S+ UTC on were examined", said.err)
    said = sidelight("counts", "--failed", *limit, *of(filled))
    assert "events before 2026-07-25" in said.err
    for command in (["latency", "received", "completed"], ["funnel", "received", "completed"]):
        said = sidelight(*command, *limit, *of(filled))
        assert "artifacts that began before 2026-07-25" in said.err
        assert sidelight(*command, "--json", *of(filled)).err == ""


# -- latency and funnel --------------------------------------------------------------------------


def test_latency(filled):
    (found,) = json_of("latency", "received", "completed", *of(filled))
    with Store(filled) as opened:
        (answer,) = opened.latency("received", "completed")
    assert found["p99_ns"] == answer.p99_ns
    assert (found["arrived"], found["waiting"]) == (COMPLETED, 60 - COMPLETED)
    said = sidelight("latency", "received", "completed", *of(filled))
    assert re.search(
        rf"^\s*{COMPLETED} +\d.* min .* {60 - COMPLETED} +\d.* ago$", said.out, re.MULTILINE
    )
    said = sidelight("latency", "received", "completed,failed", "--by", "organization", *of(filled))
    assert re.findall(r"^(·|north|south) ", said.out, re.MULTILINE) == ["·", "north", "south"]
    said = sidelight("latency", "heard", "of", *of(filled))
    assert (said.code, said.out, "holds no such artifacts" in said.err) == (0, "", True)


def test_funnel(filled):
    steps = ["received", "transcribed", "completed,failed"]
    (found,) = json_of("funnel", *steps, *of(filled))
    reached = [each["reached"] for each in found["steps"]]
    transcribed = sum(life.transcribed is not None for life in LIVES)
    assert reached == [60, transcribed, transcribed - count("stuck_late")]
    said = sidelight("funnel", *steps, *of(filled), columns=160)
    assert re.search(r"^received +60 +100.0% .*failed 6", said.out, re.MULTILINE)
    ended = rf"^completed {COMPLETED}, failed 3 +{COMPLETED + 3} +70.0% +\d"
    assert re.search(ended, said.out, re.MULTILINE)
    said = sidelight("funnel", "heard", "of", *of(filled))
    assert (said.code, said.out, "holds no such artifacts" in said.err) == (0, "", True)


# -- records that still wait ---------------------------------------------------------------------


def test_answers_say_how_many_events_still_wait_in_the_spool(tmp_path):
    path = tmp_path / "events.db"
    hint = (
        f"their process has ended: `sidelight relay --once --store sqlite:///{path}` delivers them"
    )
    emit(KILLED, path, ends=signal.SIGKILL)
    for command in (["events"], ["latency", "a", "b"], ["erase", "--artifact", "order-1", "--yes"]):
        said = sidelight(*command, *of(path))
        assert (said.code, f"500 events wait in {path}-spool; {hint}" in said.err) == (1, True), (
            said
        )
    assert sidelight("relay", "--once", *of(path)).code == 0
    emit(TWO_ORDERS, path)
    assert "still in the spool" not in sidelight("events", *of(path)).err
    emit(KILLED, path, ends=signal.SIGKILL)
    way = ["order_received", "order_packed"]
    for command in (
        ["events"],
        ["counts"],
        ["timeline", "order-1"],
        ["latency", *way],
        ["funnel", *way],
    ):
        for form in ([], ["--json"]):
            said = sidelight(*command, *form, *of(path))
            assert f"\n500 events still in the spool; {hint}\n" in f"\n{said.err}"
    assert sidelight("relay", "--once", *of(path)).code == 0
    assert "still in the spool" not in sidelight("events", *of(path)).err
