"""`sidelight docs`: the pages come with the package, and errors name pages that exist."""

import re
import tomllib
from pathlib import Path

import pytest
from tests.support.commands import sidelight
from tests.support.terminals import in_pipe, in_terminal, plain

ROOT = Path(__file__).parents[2]
PAGES = sorted(path for path in (ROOT / "docs").rglob("*.md") if path.name != "README.md")


def test_every_page_is_listed_by_a_name_of_its_own():
    said = sidelight("docs")
    listed = [line.split()[0] for line in said.out.splitlines()[2:]]
    assert sorted(listed) == sorted(path.stem for path in PAGES)
    assert "Tutorial: from an empty directory to a timeline" in said.out


@pytest.mark.parametrize("name", ["map", "reference/map.md", "map.md#values"])
def test_a_page_in_a_pipe_is_its_markdown(name):
    assert sidelight("docs", name).out == (ROOT / "docs" / "reference" / "map.md").read_text()


def test_a_page_in_a_pipe_is_without_the_notes_for_the_tests():
    noted = next(path for path in PAGES if "<!--" in path.read_text())
    assert "<!--" not in sidelight("docs", noted.stem).out


def test_a_page_that_does_not_exist():
    said = sidelight("docs", "mapp")
    assert (said.code, said.out) == (1, "")
    assert "there is no page mapp; did you mean map?" in said.err
    assert "did you mean relay-as-a-service?" in sidelight("docs", "relay").err
    assert "`sidelight docs` lists them" in sidelight("docs", "zzz").err


def test_every_page_on_a_terminal():
    commands = [["docs", path.stem] for path in PAGES]
    for (_, name), text in zip(commands, in_terminal(commands, 80), strict=True):
        words = plain(text)
        assert "exit code 0" in words, (name, words)
        assert max(map(len, words.splitlines())) <= 80, name
        assert not re.search(r"\]\([\w./-]+\.md|<!--|```", words), name
        assert "\x1b[48" not in text, name
        colours = set(re.findall(r"\x1b\[(?:[134];)?(?:3[0-7]|9\d)m", text))
        assert not colours, (name, "the first 16 colours are another colour in each terminal")


def test_errors_name_pages_that_exist():
    stems = {path.stem for path in PAGES}
    named = {
        name
        for path in (ROOT / "src" / "sidelight").rglob("*.py")
        for name in re.findall(r"`sidelight docs ([\w-]+)", path.read_text("utf-8"))
    } - {"PAGE"}
    assert named <= stems
    assert "map" in named
    sources = [*(ROOT / "src" / "sidelight").rglob("*.py")]
    assert not [path for path in sources if re.search(r"docs/[\w-]+/[\w-]+\.md", path.read_text())]


def test_the_wheel_carries_the_pages():
    """`make wheel` asks an installed one."""
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    carried = build["targets"]["wheel"]["force-include"]
    assert all(any(path.is_relative_to(ROOT / place) for place in carried) for path in PAGES), (
        carried
    )


def test_without_pages_the_command_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr("sidelight.cli.docs._PLACES", (tmp_path,))
    said = sidelight("docs", "map")
    assert (said.code, "no pages of documentation" in said.err) == (1, True)
    assert in_pipe([["docs", "losses"]])[0].startswith("# ")
