"""The commands that ask, on a store that a real process has emitted into."""

import contextlib
import importlib
import json
import os
import re
import sqlite3
import sys
import textwrap
from pathlib import Path

import pytest
from tests.support.commands import TWO_ORDERS, emit, end, of, sidelight, spawn

import voice_notes.events
from sidelight import Store, __version__
from sidelight.store.schema import VERSION, connect


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    path = tmp_path_factory.mktemp("filled") / "events.db"
    emit(TWO_ORDERS, path)
    return path


# -- questions -------------------------------------------------------------------------------


def test_events_on_a_terminal(filled):
    said = sidelight("events", *of(filled))
    assert said.code == 0
    types = re.findall(r"[▸✓✗•] (\S+)", said.out)
    assert types == [
        "order_received",
        "packing_started",
        "order_packed",
        "order_received",
        "packing_started",
        "packing_failed",
    ]
    assert re.search(r"✓ order_packed +order-1 +north +[\d.]+ ms", said.out)
    assert max(map(len, said.out.splitlines())) <= 100


def test_events_for_programs(filled):
    said = sidelight("events", "--json", *of(filled))
    assert said.err == ""
    first, *_, last = said.json
    assert first["type"] == "order_received"
    assert first["attributes"] == {"size": 3}
    assert last["attributes"] == {
        "error.type": "ValueError",
        "error.message": "no [bold]boxes[/bold] left",
    }
    with Store(f"sqlite:///{filled}") as store:
        assert [event.event_id for event in store.events()] == [e["event_id"] for e in said.json]
        assert first["occurred_ns"] == next(store.events()).occurred_ns


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--artifact", "order-2"], 3),
        (["--organization", "north"], 3),
        (["--organization", ""], 3),
        (["--type", "packing_started"], 2),
        (["--type", "packing_failed", "--type", "order_packed"], 2),
        (["--limit", "2"], 2),
        (["--since", "1h"], 6),
        (["--since", "2999-01-01"], 0),
        (["--until", "2020-01-01"], 0),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_events_that_are_asked_for(filled, options, found):
    assert len(sidelight("events", "--json", *options, *of(filled)).json) == found


def test_the_latest_events_are_shown_in_their_order(filled):
    said = sidelight("events", "--json", "-n", 2, *of(filled))
    assert [each["type"] for each in said.json] == ["packing_started", "packing_failed"]
    turned = sidelight("events", "--json", "-n", 2, "--newest-first", *of(filled))
    assert turned.json == said.json[::-1]


def test_events_of_one_trace(filled):
    (trace,) = {e["trace_id"] for e in sidelight("events", "--json", "-n", 1, *of(filled)).json}
    said = sidelight("events", "--json", "--trace", trace, *of(filled))
    assert [each["type"] for each in said.json] == ["packing_started", "packing_failed"]


def test_artifacts(filled):
    said = sidelight("artifacts", *of(filled))
    assert re.search(r"order-1 +north +3", said.out)
    assert [each["artifact_id"] for each in sidelight("artifacts", "--json", *of(filled)).json] == [
        "order-2",
        "order-1",
    ]


def test_a_timeline_on_a_terminal(filled):
    said = sidelight("timeline", "order-1", *of(filled))
    heading, times, *_ = said.out.splitlines()
    assert heading.startswith("order-1 · north · 3 events · ")
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} to .* UTC", times)
    assert re.search(r"\+[\d.]+ [µm]s +✓ order_received +[╺━╸]+ +[\d.]+ [µm]s", said.out)
    assert re.search(r"\+[\d.]+ [µm]s +▸ packing_started +▸┄+", said.out)
    assert re.search(r"\+[\d.]+ ms +✓ order_packed +[╺━╸]+ +[\d.]+ ms", said.out)


def test_a_timeline_says_what_went_wrong(filled):
    said = sidelight("timeline", "order-2", *of(filled), columns=140)
    assert "no organization" in said.out
    assert "✗ packing_failed" in said.out
    assert "error.type=ValueError error.message=no [" in said.out


@pytest.mark.parametrize("columns", [20, 45, 60, 80, 200])
def test_any_width_will_do(filled, columns):
    for command in (["events"], ["timeline", "order-1"], ["counts"], ["budget"], ["artifacts"]):
        said = sidelight(*command, *of(filled), columns=columns)
        assert said.code == 0
        assert max(map(len, said.out.splitlines())) <= columns


def test_a_timeline_as_a_picture(filled, tmp_path):
    picture = tmp_path / "timeline.svg"
    said = sidelight("timeline", "order-1", "--svg", picture, *of(filled))
    assert (said.code, said.out, said.err) == (0, "", "")
    drawn = picture.read_text(encoding="utf-8")
    assert drawn.startswith("<svg")
    assert "order_packed" in drawn
    assert "━" in drawn
    said = sidelight("timeline", "order-1", "--svg", tmp_path / "no" / "where.svg", *of(filled))
    assert said.code == 1
    assert "cannot write" in said.err


def test_an_unknown_artifact_is_named(filled):
    said = sidelight("timeline", "ordre-1", *of(filled))
    assert said.code == 1
    assert "knows no artifact ordre-1; did you mean order-1?" in said.err


def test_counts(filled):
    said = sidelight("counts", *of(filled))
    assert re.search(r"north +order_packed +\d{4}-\d\d-\d\d +1", said.out)
    assert "6 events in all" in said.err
    by_type = sidelight("counts", "--json", "--by", "type", *of(filled)).json
    assert {each["type"]: each["count"] for each in by_type} == {
        "order_packed": 1,
        "order_received": 2,
        "packing_failed": 1,
        "packing_started": 2,
    }
    by_owner = sidelight("counts", "--json", "--by", "organization", *of(filled)).json
    assert by_owner == [
        {"organization_id": None, "count": 3},
        {"organization_id": "north", "count": 3},
    ]


def test_budget(filled):
    said = sidelight("budget", *of(filled))
    assert re.search(r"__main__:pack +\d+ +[\d.]+ [µn]s", said.out)
    costs = sidelight("budget", "--json", *of(filled)).json
    assert {cost["point"] for cost in costs} == {"__main__:pack", "__main__:receive"}
    assert all(cost["p50"] <= cost["p99"] <= cost["p999"] <= cost["max"] for cost in costs)


def test_nothing_that_was_emitted_can_move_the_cursor(tmp_path):
    path = tmp_path / "events.db"
    emit(
        r"""
        receive("evil \x1b[2J\x07 \r\n id [red]x", "o\x9b1", size="\x1b]0;title\x07")
        assert sidelight.flush(60)
        """,
        path,
    )
    for command in (
        ["events"],
        ["artifacts"],
        ["counts"],
        ["timeline", "evil \x1b[2J\x07 \r\n id [red]x"],
    ):
        said = sidelight(*command, *of(path))
        assert said.code == 0
        assert not set(said.out) & set("\x1b\x07\r\x9b")
    assert r"\x1b[2J" in sidelight("artifacts", *of(path)).out


def test_in_a_pipe_there_are_no_colours_and_nothing_is_cut(filled):
    assert (Path(sys.prefix) / "bin" / "sidelight").exists()
    plain = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    said = end(spawn("timeline", "order-2", *of(filled), env=plain))
    assert said.code == 0
    assert "\x1b" not in said.out + said.err
    assert "error.type=ValueError error.message=no [bold]boxes[/bold] left" in said.out


def test_a_reader_that_has_seen_enough_ends_it_quietly(filled):
    process = spawn("events", "--json", *of(filled))
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(20) in {0, 1}


def test_a_terminal_that_knows_no_symbols(filled):
    said = end(spawn("events", *of(filled), env={**os.environ, "PYTHONIOENCODING": "ascii"}))
    assert said.code == 0, said
    assert "order_packed" in said.out


# -- where there is nothing ------------------------------------------------------------------

QUESTIONS = [
    ["events"],
    ["artifacts"],
    ["counts"],
    ["budget"],
    ["timeline", "a1"],
    ["tail", "-n", "0"],
]


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["events", "--since", "soon"], "since: 'soon' is not a time; write 2026-07-25"),
        (["events", "--trace", "12"], "32 hexadecimal digits"),
        (["events", "--store", "events.db"], "write sqlite:///events.db"),
        (["events", "--store", "mysql://h/d"], "mysql is not supported"),
    ],
    ids=str,
)
def test_what_cannot_be_understood_is_named(filled, arguments, message):
    store = [] if "--store" in arguments else of(filled)
    said = sidelight(*arguments, *store)
    assert (said.code, said.out) == (1, "")
    assert message in said.err


COMMANDS = ["events", "artifacts", "timeline", "counts", "points", "budget", "doctor", "tail"]
COMMANDS += ["relay"]


def test_help_and_version():
    assert sidelight("--version").out == f"sidelight {__version__}\n"
    overview = sidelight("--help")
    assert overview.code == 0
    for command in COMMANDS:
        assert command in overview.out
        said = sidelight(command, "--help")
        assert said.code == 0
        assert "Example" in said.out
        assert "--json" in said.out
    assert sidelight("frobnicate").code == 2


# -- points ----------------------------------------------------------------------------------

SHOP = {
    "__init__.py": "",
    "__main__.py": "raise SystemExit('it was run')",
    "orders.py": """
        from sidelight import arg, choose, emits, result
        print("a module that prints")

        @emits("order_received", artifact_id=result.id, shop=arg.shop, n=lambda order: len(order))
        def receive(order, shop): ...

        @emits(
            choose(arg.status, {"done": "order_done"}, otherwise="order_changed"),
            artifact_id=arg.order,
        )
        def update(order, status): ...
    """,
    "deep/__init__.py": "",
    "deep/packing.py": """
        from sidelight import arg, emits

        class Packer:
            @emits(start="packing_started", failure="packing_failed", mode="awaited")
            async def pack(self, order): ...
    """,
}


@pytest.fixture
def shop(tmp_path):
    for name, source in SHOP.items():
        path = tmp_path / "shop" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(source))
    return tmp_path


def points(directory, *arguments):
    return end(spawn("points", *arguments, cwd=directory, env={**os.environ, "COLUMNS": "90"}))


def test_the_map_of_a_package(shop):
    said = points(shop, "shop")
    assert said.code == 0, said.err
    assert re.search(r"receive +shop/orders\.py:\d", said.out)
    assert "scheduled  ✓ order_done | order_changed" in said.out
    assert "awaited  ▸ packing_started  ✗ packing_failed" in said.out
    assert "Packer.pack" in said.out
    assert "artifact_id = result.id" in said.out
    assert "n = lambda order: len(order)" in said.out
    assert "a module that prints" not in said.out + said.err
    said = points(shop, "shop", "--import")
    assert "Packer.pack" in said.out
    assert "a module that prints" not in said.out


def test_the_map_for_programs(shop):
    said = points(shop, "shop", "--json")
    update = next(each for each in said.json if each["point"] == "shop.orders:update")
    assert update == {
        "point": "shop.orders:update",
        "file": str(shop / "shop" / "orders.py"),
        "line": update["line"],
        "kind": "function",
        "span": True,
        "declarations": [
            {
                "mode": "scheduled",
                "start": None,
                "success": ["order_done", "order_changed"],
                "failure": None,
                "fields": {"artifact_id": "arg.order"},
                "transaction": None,
                "after_commit": None,
                "unsaid": {},
            }
        ],
    }
    assert len(said.json) == 3


def test_what_cannot_be_imported_is_named_beside_the_rest(shop):
    (shop / "shop" / "broken.py").write_text("import nowhere_to_be_found")
    (shop / "shop" / "unread.py").write_text("import sidelight; def f(:")
    said = points(shop, "shop", "missing")
    assert said.code == 1
    assert "cannot read shop.unread: line 1: " in said.err
    assert "there is no module missing; name it as in an import statement" in said.err
    assert "Packer.pack" in said.out
    said = points(shop, "shop", "missing", "--import")
    assert said.code == 1
    assert "cannot import shop.broken: ModuleNotFoundError" in said.err
    assert "cannot import missing: ModuleNotFoundError: No module named 'missing'" in said.err
    assert "Packer.pack" in said.out


def test_the_map_of_nothing(shop):
    assert "name a module" in sidelight("points").err
    (shop / "plain.py").write_text("x = 1")
    said = points(shop, "plain")
    assert said.code == 0
    assert "no function there is decorated" in said.err
    assert "is a file; name the module" in sidelight("points", "shop/orders.py").err


# -- the catalogue ---------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _declared():
    """What other tests may have forgotten."""
    importlib.reload(voice_notes.events)


def test_catalogue():
    answer = sidelight("catalogue", "voice_notes", columns=200)
    assert answer.code == 0
    assert "artifact_received" in answer.words
    assert "A voice note has arrived." in answer.words
    assert "seconds?: number | null" in answer.words
    assert "voice_notes.artifacts:create_artifact" in answer.out
    assert "17 event types" in answer.err
    assert "nobody" not in answer.out


def test_catalogue_for_programs():
    answer = sidelight("catalogue", "voice_notes", "--json")
    (failed,) = (each for each in answer.json if each["type"] == "artifact_failed")
    assert failed["emitted_by"] == ["voice_notes.artifacts:update_artifact_status"]
    assert failed["schema"]["required"] == ["artifact_id", "status"]
    schema = json.loads(sidelight("catalogue", "voice_notes", "--json-schema").out)
    assert schema["$defs"]["artifact_failed"]["required"] == ["artifact_id", "status"]


def test_catalogue_as_a_page():
    page = sidelight("catalogue", "voice_notes", "--markdown").out
    assert page.startswith("# Events\n\n## `artifact_completed`\n")
    assert "| `size` | integer | Its size in bytes. |" in page
    assert '| `kind` | "crm_note" \\| "follow_up_mail" |  |' in page
    assert "Emitted by `voice_notes.artifacts:create_artifact`." in page


def test_a_catalogue_of_what_cannot_be_imported():
    assert sidelight("catalogue").code == 2
    answer = sidelight("catalogue", "no_such_module")
    assert answer.code == 1
    assert "cannot import no_such_module" in answer.err
