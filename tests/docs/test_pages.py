"""The form of the pages: blocks, links, the index; and no page denies what there is."""

from __future__ import annotations

import inspect
import re

import pytest
import typer.main
from tests.docs.pages import ROOT, Page, every_page

import sidelight
from sidelight.cli.app import app

EACH = pytest.mark.parametrize("page", every_page(), ids=lambda page: page.name)


@EACH
def test_every_block_has_a_language_and_parses(page):
    for block in page.blocks:
        assert block.language, f"{page.name}:{block.line}: a block without a language"
        assert block.language != "output", f"{page.name}:{block.line}: nothing compares it"
        if block.language == "python":
            compile(block.text, page.name, "exec")


@EACH
def test_links_resolve(page):
    anchors = {each.path: each.anchors for each in every_page()}
    for link in page.links:
        if link.startswith(("https://", "http://", "mailto:")):
            continue
        target, _, fragment = link.partition("#")
        path = (page.path.parent / target).resolve() if target else page.path
        assert path.exists(), f"{page.name}: {link}"
        assert path.is_relative_to(ROOT), f"{page.name}: {link}"
        if fragment:
            assert fragment in anchors[path], f"{page.name}: {link}; there are {anchors[path]}"


def test_every_page_is_in_the_index():
    index = Page(ROOT / "docs" / "README.md")
    listed = {(index.path.parent / link.partition("#")[0]).resolve() for link in index.links}
    written = {page.path for page in every_page() if page.path.is_relative_to(ROOT / "docs")}
    assert written - {index.path} <= listed


@EACH
def test_tables_stand_whole(page):
    """A row of a table that has lost its head is shown as text."""
    before = ""
    for line in page.prose.splitlines():
        if line.startswith("|") and not before.startswith("|"):
            head = line
        if re.fullmatch(r"\|[-:| ]+\|", line):
            head = ""
        if before.startswith("|") and not line.startswith("|"):
            assert not head, f"{page.name}: a table without a head: {head}"
        before = line


@EACH
def test_pages_name_no_place_of_one_machine(page):
    assert not re.search(r"(?<![\w.])/(?:home|root|work|Users)/", page.text)


#: What the code of a page needs and sidelight does not bring, and the words that say how to get it.
NEEDS = {
    r"import psycopg|postgresql\+psycopg": r"sidelight\[postgres\]",
    r"localhost/shop": r"createdb shop",
    r"stream=": r"sidelight\[kafka\]",
    r"localhost:9092": r"kafka-topics.sh",
    r"to_arrow": r"sidelight\[arrow\]",
    r"sidelight ui": r"sidelight\[ui\]",
    r"from cloudevents": r"pip install cloudevents",
    r"import django": r"pip install .*django",
}


@EACH
def test_a_page_says_how_to_get_what_it_needs(page):
    code = "\n".join(block.text for block in page.blocks if page.path.parent.name == "how-to")
    for needed, said in NEEDS.items():
        assert re.search(said, page.text) or not re.search(needed, code), (page.name, needed)


# -- what is promised ends somewhere -------------------------------------------------------------

#: What each claim is, by the section of the page that says where it ends.
CLAIMS = {
    "if-and-only-if": r"if and only if",
    "exactly-once": r"exactly once",
    "10-ms": r"\b10 ms\b",
    "never-lost": r"(?i)nothing is lost|loses nothing|never lost",
}
#: The page itself, what is for contributors, and the words of findings and changes.
NO_CLAIMS = {"what-is-promised.md", "the-house.md", "doctor.md", "CHANGELOG.md"}


@EACH
def test_a_page_that_claims_links_to_where_the_claim_ends(page):
    if page.path.name in NO_CLAIMS:
        return
    for section, words in CLAIMS.items():
        linked = [link for link in page.links if link.endswith(f"what-is-promised.md#{section}")]
        assert linked or not re.search(words, page.prose), f"{page.name}: {words}"


def test_each_guarantee_of_the_readme_links_to_where_it_ends():
    _, _, rest = Page(ROOT / "README.md").prose.partition("\n## What is guaranteed")
    items = [line for line in rest.partition("\n#")[0].splitlines() if line.startswith("- ")]
    claims = CLAIMS | {"never-lost": r"loses no event"}
    claiming = [
        (section, item)
        for item in items
        for section, words in claims.items()
        if re.search(words, item)
    ]
    assert {section for section, _ in claiming} == set(CLAIMS)
    for section, item in claiming:
        assert f"(docs/explanation/what-is-promised.md#{section})" in item


# -- what is there is not denied -----------------------------------------------------------------

DENIAL = re.compile(
    r"\bnot (?:(?:there|supported|implemented|available|built|possible|done) )?yet\b"
    r"|\byet to (?:be|come)\b|\breserved for\b|\bplanned\b|\bwill be (?:added|supported)\b"
    r"|\bin a (?:later|future) version\b",
    re.IGNORECASE,
)


def public_words():
    """The words by which users name what there is: functions, parameters, commands, options."""
    words = set(sidelight.__all__)
    for function in (sidelight.configure, sidelight.emit, sidelight.emits, sidelight.flush):
        words |= {
            name
            for name, parameter in inspect.signature(function).parameters.items()
            if parameter.kind is not parameter.VAR_KEYWORD
        }
    for name, command in typer.main.get_command(app).commands.items():
        words.add(name)
        words |= {option for parameter in command.params for option in parameter.opts}
    return words - {"type"}


def denied(sentence, words):
    """The public words in the code of a sentence that says of something that it is not there."""
    if not DENIAL.search(sentence):
        return set()
    code = " ".join(re.findall(r"`([^`]*)`", sentence))
    return words & set(re.findall(r"--[\w-]+|\w+", code))


@EACH
def test_no_page_denies_what_is_there(page):
    words = public_words()
    for sentence in page.sentences:
        assert not denied(sentence, words), f"{page.name}: {sentence}"


@pytest.mark.parametrize(
    ("sentence", "words"),
    [
        ("An event inside the transaction (`transaction=`) is not there yet.", {"transaction"}),
        (
            "`joined` is reserved for `transaction=`, which is [not there yet](../README.md).",
            {"transaction"},
        ),
        ("`sidelight prune --dry-run` is not supported yet.", {"prune", "--dry-run"}),
        ("The stream sink (Kafka) is not there yet.", set()),
        ("While another process writes, zeros mean *not yet*.", set()),
        ("`transaction=` is for those who do not want `emit` to be early.", set()),
    ],
)
def test_a_denial_is_recognized(sentence, words):
    assert denied(sentence, public_words()) == words
