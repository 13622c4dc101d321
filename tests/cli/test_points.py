"""`sidelight points` in each of its forms."""

import re
import textwrap
from pathlib import Path

import pytest
from tests.support.commands import end, sidelight, spawn

from sidelight.cli.code.importing import import_all
from sidelight.maps.described import of_code, of_map
from sidelight.maps.read import parse_map
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
    return lambda *options: end(spawn("points", "a_shop", *options, cwd=tmp_path))


@pytest.mark.parametrize("reading", [[], ["--import"]], ids=["read", "imported"])
def test_the_map_of_voice_notes_is_the_code(reading):
    import_all(["voice_notes"])
    said = sidelight("points", "voice_notes", "--toml", *reading)
    assert (said.code, said.err) == (0, "")
    mapped = {each.function: of_map(each) for each in parse_map(said.out, Path("x.toml")).points}
    assert len(mapped) == 12
    for path, described in mapped.items():
        (declaration,) = of_code(POINTS.get(path)).declarations
        assert described.facts() == declaration.facts()
        assert declaration.unsaid == {}


@pytest.mark.parametrize("reading", [[], ["--import"]], ids=["read", "imported"])
def test_what_a_map_cannot_say_is_named(shop, reading):
    said = shop("--toml", *reading)
    assert said.code == 1
    (point,) = parse_map(said.out, Path("x.toml")).points
    assert (point.function, point.success, point.failure) == ("a_shop:send", "sent", "lost")
    assert "the map does not say all: a_shop:send: attributes.n = " in said.err
    assert "a map calls functions by their names: give it one" in said.err
    assert "a_shop:Desk.report: success = choose(arg.code, …): a map chooses by texts" in said.err
    assert "it has 1, 2: choose by a function that returns one" in said.err
    assert "so the point is not in the map" in said.err


def test_a_page(shop):
    said = shop("--markdown")
    assert said.code == 0
    assert "## `a_shop`" in said.out
    assert "| `send` | ✓ `sent`<br>✗ `lost` | scheduled | `artifact_id = result.id`<br>" in said.out
    assert "| `Desk.report` | ✓ `opened` or `closed` | awaited |" in said.out


def test_a_picture(shop):
    said = shop("--mermaid")
    assert said.code == 0
    assert said.out.startswith('flowchart LR\n  subgraph m0["a_shop"]\n')
    (send,) = re.findall(r'(f\d)\["send"\]', said.out)
    (lost,) = re.findall(r'(e\d)\(\["lost"\]\)', said.out)
    assert f"  {send} -.->|if it raises| {lost}\n" in said.out
    (opened,) = re.findall(r'(e\d)\(\["opened"\]\)', said.out)
    assert re.search(rf"  f\d ==> {opened}\n", said.out)


def test_what_the_source_does_not_show_is_named(tmp_path):
    (tmp_path / "a_shop.py").write_text(
        "from sidelight import emits\nraise_or = str\n@emits(raise_or('sent'))\ndef send(): ...\n"
    )
    said = end(spawn("points", "a_shop", cwd=tmp_path))
    assert said.code == 0
    assert "scheduled  ✓ raise_or('sent')" in said.out
    assert "a_shop:send: success = raise_or('sent'): what it is shows when the code is" in said.err
    said = end(spawn("points", "a_shop", "--import", cwd=tmp_path))
    assert "scheduled  ✓ sent" in said.out


def test_one_form_at_a_time(shop):
    said = shop("--markdown", "--toml")
    assert said.code == 2
    assert "choose one of --toml, --markdown, --mermaid and --json" in said.err


def test_only_what_was_asked_for(shop):
    assert [each["point"] for each in shop("--json").json] == ["a_shop:send", "a_shop:Desk.report"]
    assert sidelight("points", "voice_notes.drafts", "--json").out.count('"point"') == 3
