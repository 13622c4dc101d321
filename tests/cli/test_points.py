"""`sidelight points` in each of its formats."""

import re
import textwrap
from pathlib import Path

import pytest
from tests.support.commands import apart, end, sidelight, spawn

from sidelight.cli.code import import_all
from sidelight.maps.listing import listed_point
from sidelight.maps.reader import parse_map
from sidelight.points.registry import POINTS

SHOP = """
    from sidelight import arg, choose, emits, result

    @emits("sent", failure="lost", artifact_id=result.id, n=lambda order: len(order))
    def send(order): ...

    class Desk:
        @emits(choose(arg.code, {1: "opened", 2: "closed"}), mode="awaited")
        async def report(self, code): ...
"""


@pytest.fixture
def shop(tmp_path):
    (tmp_path / "a_shop.py").write_text(textwrap.dedent(SHOP))
    return lambda *options: apart("points", "a_shop", *options, cwd=tmp_path)


@pytest.mark.parametrize("reading", [[], ["--import"]], ids=["read", "imported"])
def test_the_map_of_voice_notes_is_the_code(reading):
    import_all(["voice_notes"])
    done = sidelight("points", "voice_notes", "--toml", *reading)
    assert (done.code, done.err) == (0, "")
    mapped = {each.function: each for each in parse_map(done.out, Path("x.toml")).points}
    assert len(mapped) == 12
    for path, described in mapped.items():
        (declaration,) = listed_point(POINTS.get(path)).declarations
        assert described.facts() == declaration.facts()
        assert declaration.opaque == {}


@pytest.mark.parametrize("reading", [[], ["--import"]], ids=["read", "imported"])
def test_values_that_a_map_cannot_express_are_named(shop, reading):
    done = shop("--toml", *reading)
    assert done.code == 1
    (point,) = parse_map(done.out, Path("x.toml")).points
    assert (point.function, point.success, point.failure) == ("a_shop:send", "sent", "lost")
    assert "the map is not complete: a_shop:send: attributes.n = " in done.err
    assert "a map calls a function by its path; give the function a name" in done.err
    assert "a_shop:Desk.report: success = choose(arg.code, …): a map chooses by texts" in done.err
    assert "it has 1, 2; choose by a function that returns one" in done.err
    assert "so the point is not in the map" in done.err


def test_mermaid(shop):
    done = shop("--mermaid")
    assert done.code == 0
    assert done.out.startswith('flowchart LR\n  subgraph m0["a_shop"]\n')
    (send,) = re.findall(r'(f\d)\["send"\]', done.out)
    (lost,) = re.findall(r'(e\d)\(\["lost"\]\)', done.out)
    assert f"  {send} -.->|if it raises| {lost}\n" in done.out
    (opened,) = re.findall(r'(e\d)\(\["opened"\]\)', done.out)
    assert re.search(rf"  f\d ==> {opened}\n", done.out)


def test_values_that_the_source_does_not_show_are_named(tmp_path):
    (tmp_path / "a_shop.py").write_text(
        "from sidelight import emits\nraise_or = str\n@emits(raise_or('sent'))\ndef send(): ...\n"
    )
    done = end(spawn("points", "a_shop", cwd=tmp_path))
    assert done.code == 0
    assert "scheduled  ✓ raise_or('sent')" in done.out
    assert (
        "a_shop:send: success = raise_or('sent'): the source does not show it; import the code"
        in done.err
    )
    done = apart("points", "a_shop", "--import", cwd=tmp_path)
    assert "scheduled  ✓ sent" in done.out


def test_functions_that_have_one_path(tmp_path):
    """The source and an import show each of them; a map can name none of them."""
    (tmp_path / "a_shop.py").write_text(
        textwrap.dedent("""
        import functools
        from sidelight import arg, emits

        class Desk:
            @property
            @emits("read")
            def size(self): ...
            @size.setter
            @emits("set", n=arg.size)
            def size(self, size): ...

        @functools.singledispatch
        def show(value): ...
        @show.register
        @emits("int_shown")
        def _(value: int): ...
        @show.register
        @emits("text_shown")
        def _(value: str): ...

        def make(kind):
            @emits(kind)
            @emits("made")
            def inner(): ...
            return inner

        made = [make(f"kind_{n % 3}") for n in range(9)]
        """)
    )

    def points(*options):
        done = apart("points", "a_shop", "--json", *options, cwd=tmp_path)
        return [
            (each["point"].partition(":")[2], declared["success"])
            for each in done.json
            for declared in each["declarations"]
        ]

    named = [
        ("Desk.size", ["read"]),
        ("Desk.size", ["set"]),
        ("_", ["int_shown"]),
        ("_", ["text_shown"]),
    ]
    inner = "make.<locals>.inner"
    assert points() == [*named, (inner, ["made"]), (inner, [])]
    made = [(inner, types) for n in range(3) for types in (["made"], [f"kind_{n}"])]
    assert points("--import") == [*named, *made]
    done = apart("points", "a_shop", "--import", "--toml", cwd=tmp_path)
    assert parse_map(done.out, Path("x.toml")).points == ()
    assert "a_shop:_ is not in the map: several functions have this path" in done.err


def test_one_format_at_a_time(shop):
    done = shop("--mermaid", "--toml")
    assert done.code == 2
    assert "choose one of --toml, --mermaid and --json" in done.err


def test_only_the_named_modules_are_listed(shop):
    assert [each["point"] for each in shop("--json").json] == ["a_shop:send", "a_shop:Desk.report"]
    assert sidelight("points", "voice_notes.drafts", "--json").out.count('"point"') == 3
