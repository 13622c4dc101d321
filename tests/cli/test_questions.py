"""The commands that ask the store, each on SQLite and on PostgreSQL."""

import contextlib
import itertools
import json
import os
import re
import select
import signal
import sqlite3
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from tests.support.commands import TWO_ORDERS, emit, end, of, sidelight, spawn, start
from tests.support.stored import BACKENDS, NOON, ledger, record, sqlite, store

from sidelight import Store, __version__
from sidelight.cli import app
from sidelight.cli.doctor.stream import check_stream
from sidelight.store.engine import connect
from sidelight.store.opening import VERSION

TYPES = [
    *("order_received", "packing_started", "order_packed"),
    *("order_received", "packing_started", "packing_failed"),
]
LONG_TYPE = "entity_resolution_needs_disambiguation"
QUESTIONS = [
    ["events"],
    ["artifacts"],
    ["counts"],
    ["budget"],
    ["timeline", "a1"],
    ["tail", "-n", "0"],
]


@pytest.fixture(scope="module", params=sorted(BACKENDS))
def filled(request, tmp_path_factory):
    """The URL of a store that a real process has emitted into."""
    directory = tmp_path_factory.mktemp("filled")
    url = BACKENDS[request.param](directory)
    spool = str(directory / "spool")
    emit(TWO_ORDERS, url, SIDELIGHT_SPOOL=spool)
    # On a busy machine the process may end before its costs are delivered.
    assert sidelight("relay", "--once", "--spool", spool, *of(url)).code == 0
    return url


def json_of(*arguments):
    said = sidelight(*arguments, "--json")
    assert (said.code, said.err) == (0, "")
    return said.json


def types_of(*arguments):
    return [event["type"] for event in json_of("events", *arguments)]


# -- answers ---------------------------------------------------------------------------------


def test_events(filled):
    said = sidelight("events", *of(filled))
    assert said.code == 0
    assert re.findall(r"[▸✓✗•] (\S+)", said.out) == TYPES
    assert re.search(r"✓ order_packed +order-1 +north +[\d.]+ m?s", said.out)
    listed = json_of("events", *of(filled))
    assert [event["type"] for event in listed] == TYPES
    assert listed[0]["attributes"] == {"size": 3}
    assert listed[-1]["attributes"] == {
        "error.type": "ValueError",
        "error.message": "no [bold]boxes[/bold] left",
    }
    with Store(filled) as opened:
        assert [event.event_id for event in opened.events()] == [e["event_id"] for e in listed]
        assert listed[0]["occurred_ns"] == next(opened.events()).occurred_ns


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--artifact", "order-2"], TYPES[3:]),
        (["--organization", "north"], TYPES[:3]),
        (["--organization", ""], TYPES[3:]),
        (["--type", "packing_started"], ["packing_started"] * 2),
        (["--type", "packing_failed", "--type", "order_packed"], ["order_packed", TYPES[-1]]),
        (["--limit", "2"], TYPES[-2:]),
        (["--limit", "2", "--newest-first"], TYPES[:-3:-1]),
        (["--since", "1h"], TYPES),
        (["--since", "2999-01-01"], []),
        (["--until", "2020-01-01"], []),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_events_that_are_selected(filled, options, found):
    assert types_of(*options, *of(filled)) == found


def test_events_of_one_trace(filled):
    (trace,) = {event["trace_id"] for event in json_of("events", "-n", 1, *of(filled))}
    assert types_of("--trace", trace, *of(filled)) == TYPES[-2:]


def test_artifacts(filled):
    assert re.search(r"order-1 +north +3", sidelight("artifacts", *of(filled)).out)
    listed = [each["artifact_id"] for each in json_of("artifacts", *of(filled))]
    assert listed == ["order-2", "order-1"]


def test_an_artifact_of_several_organizations_shows_none_of_them(tmp_path):
    url = sqlite(tmp_path)
    store(url, [record(artifact=1, organization=owner) for owner in ("acme", "globex")])
    assert re.search(r"1 +several +2", sidelight("artifacts", "--store", url).out)
    (listed,) = json_of("artifacts", "--store", url)
    assert (listed["organization_id"], listed["is_shared"]) == (None, True)
    heading = sidelight("timeline", "1", "--store", url).out.splitlines()[0]
    assert heading.startswith("1 · acme, globex · 2 events")


def test_a_timeline(filled, tmp_path):
    assert [event["type"] for event in json_of("timeline", "order-1", *of(filled))] == TYPES[:3]
    heading, times, *lines = sidelight("timeline", "order-1", *of(filled)).out.splitlines()
    assert heading.startswith("order-1 · north · 3 events · ")
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} to .* UTC", times)
    drawn = "\n".join(lines)
    assert "size=3" in drawn
    assert re.search(r"\+[\d.]+ [µm]s +✓ order_received +[╺━╸]+ +[\d.]+ [µm]s", drawn)
    assert re.search(r"\+[\d.]+ [µm]s +▸ packing_started +▸┄+", drawn)
    assert re.search(r"\+[\d.]+ m?s +✓ order_packed +[╺━╸]+ +[\d.]+ m?s", drawn)
    picture = tmp_path / "timeline.svg"
    said = sidelight("timeline", "order-1", "--svg", picture, *of(filled))
    assert (said.code, said.out, said.err) == (0, "", "")
    assert "order_packed" in "".join(ET.parse(picture).getroot().itertext())
    said = sidelight("timeline", "order-1", "--svg", tmp_path / "no" / "where.svg", *of(filled))
    assert (said.code, "cannot write" in said.err) == (1, True)


@pytest.mark.parametrize("columns", [80, 100, 140])
def test_a_timeline_tells_the_attributes_at_every_width(filled, columns):
    said = sidelight("timeline", "order-2", *of(filled), columns=columns)
    assert "no organization" in said.out
    assert "✗ packing_failed" in said.out
    assert "error.type=ValueError error" in said.out


@pytest.mark.parametrize(
    ("command", "code"),
    [
        *(([each, "--organization", "nrth"], 0) for each in ("events", "artifacts", "counts")),
        (["events", "--host", "nowhere-at-all"], 0),
        (["counts", "--since", "2999-01-01"], 0),
        *(([each, "--type", "order_paked"], 0) for each in ("events", "counts")),
        (["counts", "--type", "order_packed,order_lost"], 0),
        (["events", "--point", "__main__:pakc"], 0),
        *(([each, "order_paked", "order_packed"], 0) for each in ("latency", "funnel")),
        (["export", "--to", "none.csv", "--type", "order_paked"], 0),
        *(([each, "--artifact", "order-1", "--failed"], 0) for each in ("events", "counts")),
        (["export", "--to", "of.csv", "--artifact", "order-1", "--failed"], 0),
        (["timeline", "order-1", "--failed"], 0),
        *(([each, "--artifact", "ordre-1"], 1) for each in ("events", "counts")),
        (["export", "--to", "of.csv", "--artifact", "ordre-1"], 1),
        (["timeline", "ordre-1"], 1),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_an_empty_answer_is_an_answer_and_an_unknown_artifact_is_none(
    filled, tmp_path, monkeypatch, command, code
):
    monkeypatch.chdir(tmp_path)
    said = sidelight(*command, *of(filled))
    assert (said.code, said.out) == (code, "") or command[0] == "funnel", said
    hint = "holds no events of the artifact ordre-1; did you mean order-1?"
    assert (hint in said.err) == bool(code), said
    hint = "no event in the store has the type order_paked; did you mean order_packed?"
    assert said.err.count(hint) == ("order_paked" in command), said
    hint = "the store knows no point __main__:pakc; did you mean __main__:pack?"
    assert said.err.count(hint) == ("--point" in command), said
    hint = "the type order_packed,order_lost; repeat --type for several"
    assert said.err.count(hint) == ("order_packed,order_lost" in command), said
    hint = "no event in the store has the organization nrth; did you mean north?"
    assert said.err.count(hint) == ("nrth" in command), said
    hint = "no process in the store has the host nowhere-at-all\n"
    assert said.err.count(hint) == ("--host" in command), said
    if "--to" not in command:
        assert sidelight(*command, "--json", *of(filled)).code == code


def test_counts(filled):
    said = sidelight("counts", *of(filled))
    assert re.search(r"north +order_packed +\d{4}-\d\d-\d\d +1", said.out)
    assert "6 events in total" in said.err
    assert json_of("counts", "--by", "type", *of(filled)) == [
        {"type": "order_packed", "count": 1},
        {"type": "order_received", "count": 2},
        {"type": "packing_failed", "count": 1},
        {"type": "packing_started", "count": 2},
    ]
    assert json_of("counts", "--by", "organization", *of(filled)) == [
        {"organization_id": None, "count": 3},
        {"organization_id": "north", "count": 3},
    ]


def test_budget(filled):
    said = sidelight("budget", *of(filled))
    assert re.search(r"__main__:pack +\d+ +[\d.]+ [µnm]s", said.out)
    costs = json_of("budget", *of(filled))
    assert {cost["point"]: cost["count"] for cost in costs} == {
        "__main__:pack": 4,
        "__main__:receive": 2,
    }
    assert all(cost["p50"] <= cost["p99"] <= cost["p999"] <= cost["max"] for cost in costs)


def test_budget_shows_points_without_an_emission(tmp_path):
    path = tmp_path / "events.db"
    emit("receive('order-1')\nassert sidelight.flush(60)", path)
    said = sidelight("budget", *of(path))
    assert re.search(r"__main__:pack +0 +no emission", said.out)
    assert "1 emission, " in said.err
    costs = {cost["point"]: cost["count"] for cost in json_of("budget", *of(path))}
    assert costs == {"__main__:pack": 0, "__main__:receive": 1}


def read_lines(stream, count, seconds=60):
    """Read so many lines as a process prints them."""
    lines, rest = [], b""
    while len(lines) < count and select.select([stream], [], [], seconds)[0]:
        data = os.read(stream.fileno(), 1 << 16)
        if not data:
            break
        *whole, rest = (rest + data).split(b"\n")
        lines += [line.decode() for line in whole]
    return lines


@pytest.mark.parametrize("backend", BACKENDS)
def test_tail_follows_until_it_is_interrupted(tmp_path, backend):
    url = BACKENDS[backend](tmp_path)
    store(url, [record(artifact="order-1")])
    tails = [start("tail", *form, *of(url)) for form in ((), ("--json",))]
    try:
        firsts = [read_lines(tail.stdout, 1)[0] for tail in tails]
        store(url, [record(at=NOON + 1, artifact="order-2")])
        store(url, [record(at=NOON + 2, artifact="order-3", organization="north")])
        for tail, first in zip(tails, firsts, strict=True):
            lines = [first, *read_lines(tail.stdout, 2)]
            assert [re.search(r"order-\d", line)[0] for line in lines] == [
                *("order-1", "order-2", "order-3")
            ]
            assert "north" in lines[-1]
        assert json.loads(lines[-1])["type"] == "made"
        for tail in tails:
            tail.send_signal(signal.SIGINT)
            said = end(tail)
            assert (said.code, said.out.strip(), said.err) == (0, "", "")
    finally:
        for tail in tails:
            tail.kill()
            tail.communicate()


# -- terminals and pipes ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def long_names(tmp_path_factory):
    """A store with names as long as people give them, a failure, and costs."""
    url = sqlite(tmp_path_factory.mktemp("long"))
    about = {
        "organization": "northwind-traders-international",
        "attributes": {"reason": "several people have this name"},
    }
    ids = [f"7d0c5f2e-0b1a-4d0e-8a77-5d5e0a1d000{n}" for n in range(3)]
    named = [record(LONG_TYPE, NOON + n, artifact=id, **about) for n, id in enumerate(ids)]
    failed = record("failed", outcome="failed", duration=20_000_000, error=("E", "no luck"))
    costs = {"shop:make": {"count": 3, "over": 0, "max": 123_456, "buckets": [[100, 3]]}}
    store(url, [*named, failed, ledger(costs=costs)])
    return url


@pytest.mark.parametrize("columns", [20, 45, 60, 80, 100, 140, 200])
def test_any_width_will_do(long_names, columns):
    artifact = "7d0c5f2e-0b1a-4d0e-8a77-5d5e0a1d0000"
    for command in (*QUESTIONS[:4], ["timeline", artifact]):
        said = sidelight(*command, *of(long_names), columns=columns)
        assert said.code == 0
        assert max(map(len, said.out.splitlines())) <= columns


@pytest.mark.parametrize("columns", [80, 100, 140])
def test_names_of_types_are_not_broken(long_names, columns):
    for command in (["events"], ["counts"], ["counts", "--by", "type"]):
        said = sidelight(*command, *of(long_names), columns=columns)
        assert LONG_TYPE in said.out


def test_what_is_cut_is_named(tmp_path):
    store(sqlite(tmp_path), [record(attributes={"size": " many" * 100})])
    said = sidelight("events", *of(sqlite(tmp_path)), columns=80)
    assert said.out.rstrip().endswith("many…")
    assert "attributes are cut at 80 columns; --json shows all" in said.err
    wide = sidelight("events", *of(sqlite(tmp_path)), columns=600)
    assert (" many" * 100 in wide.out, wide.err) == (True, "")


@pytest.mark.parametrize("columns", [80, 100])
def test_a_long_word_that_is_cut_fills_its_line(tmp_path, columns):
    store(sqlite(tmp_path), [record(attributes={"a": 1, "url": "shop.example/" + "y" * 600})])
    said = sidelight("events", *of(sqlite(tmp_path)), columns=columns)
    line = said.out.rstrip().splitlines()[-1]
    assert line.endswith("yyy…")
    assert len(line) == columns


def test_emitted_text_cannot_move_the_cursor(tmp_path):
    url, evil = sqlite(tmp_path), "evil \x1b[2J\x07 \r\n id [red]x"
    title = {"size": "\x1b]0;title\x07"}
    store(url, [record(artifact=evil, organization="o\x9b1", attributes=title)])
    for command in (["events"], ["artifacts"], ["counts"], ["timeline", evil]):
        said = sidelight(*command, *of(url))
        assert said.code == 0
        assert not set(said.out) & set("\x1b\x07\r\x9b")
    assert r"\x1b[2J" in sidelight("artifacts", *of(url)).out


def test_a_process_whose_output_is_no_terminal(tmp_path):
    """Its lines are whole and without colours; it stands ASCII, and a reader that goes away."""
    assert (Path(sys.prefix) / "bin" / "sidelight").exists()
    url, error = sqlite(tmp_path), ("ValueError", "no [bold]boxes[/bold] left")
    store(url, [record("order_packed", outcome="failed", error=error)])
    plain = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    whole = spawn("timeline", "a1", *of(url), env=plain)
    ascii_only = spawn("events", *of(url), env={**plain, "PYTHONIOENCODING": "ascii"})
    unread = spawn("events", "--json", *of(url))
    unread.stdout.close()
    assert unread.stderr.read() == ""
    unread.stderr.close()
    assert unread.wait(60) in {0, 1}
    said = end(whole)
    assert said.code == 0
    assert "\x1b" not in said.out + said.err
    assert "error.type=ValueError error.message=no [bold]boxes[/bold] left" in said.out
    said = end(ascii_only)
    assert said.code == 0, said
    assert "order_packed" in said.out


# -- stores without answers ------------------------------------------------------------------


@pytest.mark.parametrize("command", QUESTIONS, ids=" ".join)
@pytest.mark.parametrize("form", [[], ["--json"]], ids=["table", "json"])
def test_a_missing_store_is_named(tmp_path, command, form):
    path = tmp_path / "nothing.db"
    said = sidelight(*command, *form, *of(path))
    assert (said.code, said.out) == (1, "")
    assert f"there is no events store at sqlite:///{path}; run something" in said.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", QUESTIONS, ids=" ".join)
def test_a_newer_store_is_named(tmp_path, command):
    path = tmp_path / "events.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE sidelight_schema (version INTEGER)")
        connection.execute("INSERT INTO sidelight_schema VALUES (99)")
        connection.commit()
    said = sidelight(*command, *of(path))
    assert (said.code, said.out) == (1, "")
    assert f"has schema version 99, this sidelight knows {VERSION}: upgrade sidelight" in said.err


@pytest.mark.parametrize("command", QUESTIONS[:4], ids=" ".join)
def test_an_empty_store_says_so(tmp_path, command):
    path = tmp_path / "events.db"
    connect(f"sqlite:///{path}", create=True).dispose()
    said = sidelight(*command, *of(path))
    assert (said.code, said.out) == (0, "")
    assert str(path) in said.err
    assert sidelight(*command, "--json", *of(path)).out == ""


def test_a_postgresql_that_cannot_answer():
    empty = BACKENDS["postgresql"](Path())
    for url, problem in (
        (empty, "holds no sidelight tables"),
        (f"{empty}_not", "does not exist"),
        ("postgresql://127.0.0.1:1/events", "refused"),
    ):
        said = sidelight("events", "--store", url)
        assert (said.code, problem in said.err, "Traceback" in said.err) == (1, True, False)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["events", "--since", "soon"], 2, "since: 'soon' is not a time; write 2026-07-25"),
        (["events", "--since", "99999999d"], 2, "since: '99999999d'"),
        *(
            ([*command, "--since", "2026-07-26", "--until", "2026-07-25"], 2, "not earlier than")
            for command in (
                ["events"],
                ["counts"],
                ["artifacts"],
                ["latency", "a", "b"],
                ["funnel", "a"],
            )
        ),
        (["latency", "a", "b,,"], 2, "end: a name is empty in 'b,,'; write the name"),
        (["funnel", "a,", "b"], 2, "steps: a name is empty in 'a,'"),
        (["events", "--where", "size>"], 2, "where: 'size>' has no value; write one behind >"),
        (["events", "--trace", "12"], 2, "32 hexadecimal digits"),
        (["events", "-n", "9" * 30], 2, "is not a count; give a number from 1 to"),
        (["events", "--where", "words"], 2, "'words' is no condition; write name=value"),
        (["events", "--outcome", "odd"], 2, "'odd' is not an outcome; give one of started"),
        (["latency", "--by", "odd", "a", "b"], 2, "sidelight latency -h"),
        (["erase", "--yes"], 2, "no subject is given; name an artifact"),
        (["spool", "discard"], 2, "no entry is named; name entries, or give --all"),
        (["events", "--store", "events.db"], 1, "write sqlite:///events.db"),
        (["events", "--store", "mysql://h/d"], 1, "mysql is not supported"),
    ],
    ids=str,
)
def test_arguments_that_are_refused(long_names, arguments, code, message):
    said = sidelight(*arguments, *([] if "--store" in arguments else of(long_names)))
    assert (said.code, said.out) == (code, "")
    assert message in said.err


# -- help ------------------------------------------------------------------------------------

GROUPS = {title: [*commands] for title, commands in app._GROUPS.items()}


@pytest.mark.parametrize("columns", [80, 100, 140])
def test_help_lists_the_commands_in_named_groups(columns):
    said = sidelight("--help", columns=columns)
    assert said.code == 0
    sections = re.split(r"^╭─ (.+?) ─+╮$", said.out, flags=re.MULTILINE)
    listed = {
        title: re.findall(r"^│ ([a-z]+) ", text, re.MULTILINE)
        for title, text in zip(sections[3::2], sections[4::2], strict=True)
    }
    assert listed == GROUPS


SUBCOMMANDS = [
    *("outbox create", "outbox status"),
    *("spool quarantined", "spool replay", "spool discard"),
]


@pytest.mark.parametrize("command", [*itertools.chain(*GROUPS.values()), *SUBCOMMANDS])
def test_help_of_each_command(command):
    """Each example stands in one line of a narrow terminal."""
    said = sidelight(*command.split(), "--help", columns=80)
    assert said.code == 0
    assert max(map(len, said.out.splitlines())) <= 80
    assert "<bool>" not in said.out
    _, told, after = said.out.partition(" Examples:")
    assert bool(told) != (command == "outbox")
    examples = [line for line in after.partition("╭")[0].splitlines() if line.strip()]
    assert all(re.match(r"   sidelight \w+", line) for line in examples), examples


def test_help_keeps_brackets():
    assert "'sidelight[arrow]'" in sidelight("export", "--help").out


def test_a_stream_without_its_library_is_told(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (finding,) = check_stream("kafka://b1:9092/notes", {})
    assert (finding.state, finding.remedy) == ("wrong", "pip install 'sidelight[kafka]'")


def test_version_and_unknown_commands():
    assert sidelight("--version").out == f"sidelight {__version__}\n"
    assert sidelight("frobnicate").code == 2


def test_a_name_with_blanks_at_its_ends_is_quoted(tmp_path):
    """Else nobody sees where it ends."""
    path = tmp_path / "events.db"
    store(f"sqlite:///{path}", [record(artifact="  pad ", organization="acme ")])
    for command, told in (
        (["timeline", "pad"], "of the artifact pad; did you mean '  pad '?"),
        (["timeline", ""], "holds no events of the artifact '';"),
        (["events", "--organization", " acme"], "organization ' acme'; did you mean 'acme '?"),
        (["events", "--type", "a "], "has the type 'a '"),
    ):
        assert told in sidelight(*command, *of(path)).err
