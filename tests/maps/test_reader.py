"""The map file: everything that it can state, and how the reader refuses mistakes."""

import re
from pathlib import Path

import pytest

from sidelight.exceptions import MapError
from sidelight.maps.declarations import parse
from sidelight.maps.reader import parse_map, read_map

FILE = Path("sidelight.toml")
WHOLE = """
[[point]]
function = "shop.orders:Desk.receive"
success = { choose = "arg.status", cases = { done = "order_done" }, otherwise = "order_changed" }
start = "order_started"
failure = "order_failed"
mode = "awaited"
span = false
artifact_id = "result.id"
organization_id = { value = "north" }

[point.attributes]
size = "arg.items[0].size"
weight = { call = "shop.orders:weigh" }
urgent = true
rate = 0.5

[[point]]
function = "shop.orders:send"
success = "order_sent"
transaction = "arg.session"
strict = true
"""


def weigh(items):
    return len(items)


def point(*lines, function="shop:send"):
    return "\n".join(["", "[[point]]", f'function = "{function}"', *lines])


SENT = 'success = "sent"'


def test_everything_that_a_map_can_state():
    found = parse_map(WHOLE, FILE)
    first, second = found.points
    assert (first.module, first.qualname) == ("shop.orders", "Desk.receive")
    assert [found.place(each) for each in found.points] == ["sidelight.toml:2", "sidelight.toml:18"]
    made = first.declaration("receive", {"shop.orders:weigh": weigh}.__getitem__)
    assert made.success.types == ("order_done", "order_changed")
    options = (made.start, made.failure, made.mode, made.span)
    assert options == ("order_started", "order_failed", "awaited", False)
    assert (repr(made.artifact_id), made.organization_id) == ("result.id", "north")
    assert repr(made.attributes["size"]) == "arg.items[0].size"
    assert made.attributes["weight"] is weigh
    assert (made.attributes["urgent"], made.attributes["rate"]) == (True, 0.5)
    joined = second.declaration("send", lambda _: None)
    assert (repr(joined.transaction), joined.strict) == ("arg.session", True)


def test_equal_points_have_their_own_places():
    found = parse_map(point(SENT, 'artifact_id = "arg.a"') * 2, FILE)
    assert [found.place(each) for each in found.points] == ["sidelight.toml:2", "sidelight.toml:6"]


def test_pyproject(tmp_path):
    path = tmp_path / "pyproject.toml"
    project = '[project]\nname = "shop"\n'
    path.write_text(f'{project}\n[[tool.sidelight.point]]\nfunction = "shop:send"\n{SENT}\n')
    found = read_map(path)
    assert [found.place(each) for each in found.points] == [f"{path}:4"]
    path.write_text(project)
    assert read_map(path).points == ()


@pytest.mark.parametrize(
    "text",
    ["arg.a", "arg.a[0].b", "result", "result['k'].x", "error.args[-1]", "arg[0]", "arg.a[-1]"],
)
def test_expressions(text):
    assert repr(parse(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "eu", "args.a", "arg.a()", "arg.a + 1", "arg.a[b]", "arg..a", "arg.a[1.5]", "len(result)"],
)
def test_texts_that_are_no_expressions(text):
    with pytest.raises(ValueError, match=r"is no expression; write arg\.NAME"):
        parse(text)


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("[[point", "sidelight.toml: ", r"Expected .*; see https://toml.io"),
        (point(SENT, function="shop.send"), ":3: ", "write package.module:Class"),
        *(
            (point(SENT, function=path), ":3: ", "write package.module:Class")
            for path in (
                "shop:if",
                "shop.class:f",
                "shop:a b",
                "shop:f()",
                "shop:x\u00b2",
                ":f",
                "a::b",
            )
        ),
        (point(SENT, 'artifact_id = { call = "os:f()" }'), ":5: ", "write package.module:Class"),
        (point(SENT, 'artifact_id = "arg.a.class"'), ":5: ", "is no expression"),
        *(
            (
                point(*lines),
                place,
                rf"^[^ ]* {re.escape(name)} is not known; did you mean {meant}\?",
            )
            for lines, place, name, meant in (
                (['succes = "sent"'], ":4: ", "succes", "success"),
                ([SENT, 'failiure = "sent"'], ":5: ", "failiure", "failure"),
                ([SENT, "attribute = { a = 'arg.a' }"], ":5: ", "attribute", "attributes"),
                (["success = { chose = 'arg.a', cases = {} }"], ":4: ", "success.chose", "choose"),
                ([SENT, "artifact_id = { calls = 'a:b' }"], ":5: ", "artifact_id.calls", "call"),
                (
                    [SENT, "[point.attributes]", "a.vale = 'x'"],
                    ":6: ",
                    "attributes.a.vale",
                    "value",
                ),
            )
        ),
        (
            '[[expect]]\nafter = "a"\none_off = ["b"]\nwithin = "1 s"',
            ":3: ",
            r"^[^ ]* one_off is not known; did you mean one_of\?$",
        ),
        (
            '[[expect]]\nafter = "a"\none_of = ["b"]\nwithin = "1 s"\ncolour = 1',
            ":5: ",
            "colour is not known; an expectation has after, one_of, within$",
        ),
        (
            point(SENT, 'size = "arg.a"'),
            ":5: ",
            "size is not known; a point has after_commit, arti",
        ),
        (point(SENT, 'size = "arg.a"'), ":5: ", "; further values belong into attributes$"),
        (f"[[point]]\n{SENT}", ":1: ", "function is missing"),
        (point(), ":2: ", "no event is named; give a type"),
        (point('success = "1st"'), ":2: ", "use a name of letters"),
        (point(SENT, 'mode = "later"'), ":5: ", "^[^ ]* mode: .*'scheduled' or 'awaited'"),
        (point(SENT, 'artifact_id = "arg.a()"'), ":5: ", "'arg.a\\(\\)' is no expression"),
        (point(SENT, "attributes = { size = 'arg.' }"), ":5: ", "'arg.' is no expression"),
        (
            point(SENT, "[point.attributes]", 'a = "arg.a"', "b = 'x'"),
            ":7: ",
            "'x' is no expression.*{ value = \"x\" }",
        ),
        (point("success = { choose = 'arg.a', case = {} }"), ":4: ", "case"),
        (point(SENT, 'failure_type = "x"'), ":5: ", "failure_type is not known"),
        (point(SENT) + point(SENT, "span = 'x'"), ":8: ", "^[^ ]* span: .*boolean"),
        ("point = 3", "sidelight.toml: ", "valid list"),
        ("points = []", "sidelight.toml: ", r"points is not known; write \[\[point\]\]"),
        (point(SENT, 'attributes = { type = "arg.a" }'), ":2: ", "set by sidelight"),
    ],
)
def test_refusals_name_the_line_and_the_remedy(text, place, message):
    with pytest.raises(MapError, match=message) as caught:
        parse_map(text, FILE)
    assert place in str(caught.value)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(MapError, match="No such file or directory; name a TOML file"):
        read_map(tmp_path / "sidelight.toml")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(MapError, match="name a TOML file"):
        read_map(tmp_path / "binary")


def test_a_map_that_is_nested_too_deeply_is_refused(tmp_path):
    with pytest.raises(MapError, match="recursion"):
        parse_map(f"points = {'[' * 5000}", tmp_path / "sidelight.toml")
