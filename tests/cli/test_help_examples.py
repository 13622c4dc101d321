"""The examples in the help of each command: they are understood, and those that end are run."""

import shlex
import shutil
import sys
import time
from pathlib import Path

import pytest
from tests.support.commands import apart, sidelight
from tests.support.stored import ledger, record, sqlite, store
from typer.main import get_command

from sidelight.cli.app import app

ROOT = Path(__file__).parents[2]
ELSEWHERE = ("kafka://", "postgresql://", "http://", "https://", "/var/lib", "--to stream", "shop.")
"""What an example names that is not on the machine of a test: it is parsed, not run."""
ENDLESS = ("tail", "ui", "consume", "relay --spool", "relay --outbox", "overdue --follow", "run")


def examples():
    """Each line of an example, up to the shell's own part."""
    group = get_command(app)
    for name in group.commands:
        command = group.commands[name]
        for each in (command, *getattr(command, "commands", {}).values()):
            for line in (each.help or "").splitlines():
                words = line.replace("[not dim]", "").replace("[/]", "").replace("\\[", "[")
                if words.startswith("  sidelight "):
                    yield words.strip()


NO_SUCH_ID = ("sidelight spool discard 3f9a", "sidelight spool quarantined 3f9a")

EXAMPLES = sorted(set(examples()))


def arguments_of(example):
    typed = shlex.shlex(example, posix=True, punctuation_chars="|>")
    typed.whitespace_split = True
    words = list(typed)
    ends = [at for at, word in enumerate(words) if word in {"|", ">"}]
    return words[1 : min(ends, default=len(words))]


def test_every_command_has_an_example():
    group = get_command(app)
    named = {example.split()[1] for example in EXAMPLES}
    assert named == set(group.commands)


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_is_understood(example):
    command = get_command(app)
    rest = arguments_of(example)
    while rest and rest[0] in getattr(command, "commands", ()):
        command = command.commands[rest.pop(0)]
    command.make_context(command.name, rest)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A directory in which the examples find what they name."""
    place = tmp_path_factory.mktemp("made")
    events = [
        record(
            kind,
            time.time_ns(),
            artifact=artifact,
            organization="northwind",
            attributes={"words": 200},
        )
        for kind in ("received", "completed", "draft_rejected")
        for artifact in ("7d0c5f2e", "note-7")
    ]
    costs = {"shop:sell": {"count": 1, "over": 1, "max": 20_000_000, "buckets": [[100, 1]]}}
    store(sqlite(place), events, [ledger(costs=costs)])
    (place / "sidelight.toml").write_text(
        '[[point]]\nfunction = "shop:sell"\nsuccess = "sold"\n'
        '[[expect]]\nafter = "received"\none_of = "never"\nwithin = "1h"\n'
    )
    (place / "shop.py").write_text("def sell(order):\n    return order\n")
    shutil.copytree(ROOT / "src" / "voice_notes", place / "voice_notes")
    (place / "shop.db").touch()
    (place / "events.db-spool").mkdir(mode=0o700)
    return place


@pytest.mark.parametrize(
    "example",
    [
        each
        for each in EXAMPLES
        if not any(name in each for name in ELSEWHERE)
        and not each.removeprefix("sidelight ").startswith(ENDLESS)
    ],
)
def test_an_example_runs_as_it_is_typed(example, made, tmp_path, monkeypatch):
    shutil.copytree(made, tmp_path / "typed")  # because some of the examples delete
    monkeypatch.chdir(tmp_path / "typed")
    monkeypatch.setenv("SIDELIGHT_STORE", "sqlite:///events.db")
    arguments = arguments_of(example)
    # `catalogue` imports the copy. So it runs in another process, because tests use the original.
    said = apart(*arguments) if arguments[0] == "catalogue" else sidelight(*arguments)
    assert not any(str(tmp_path) in str(each) for each in list(sys.modules.values()))
    assert said.code == (2 if example.startswith(NO_SUCH_ID) else 0), said
    assert said.out or said.err or Path("timeline.svg").exists()
