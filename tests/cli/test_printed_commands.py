"""A command that an answer prints does, typed as it is, what the answer says."""

import re
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from tests.support.commands import (
    KILLED,
    TWO_ORDERS,
    emit,
    of,
    printed,
    sidelight,
    understood,
)
from tests.support.pages import serve
from tests.support.rules import alter, rule

from sidelight.cli.doctor.findings import REMEDIES
from sidelight.cli.spool.commands import TAKES, as_command, located
from sidelight.settings import settle

LISTS, REPLAYS = ["spool", "quarantined"], ["spool", "replay"]
PLACES = {"store", "spool", "directory", "stream"}
EXPECT = '[[expect]]\nafter = "order_received"\none_of = "order_packed"\nwithin = "1ms"\n'


@pytest.fixture(params=["beside", "elsewhere"])
def place(request, tmp_path):
    """A store with a space in its path, and its spool; the environment names neither."""
    (folder := tmp_path / "a b").mkdir()
    path = folder / "events.db"
    if request.param == "beside":
        return path, path.with_name("events.db-spool")
    return path, tmp_path / "the spool"


def options_of(path, spool):
    """The options of a command that takes both, where the spool is not the store's own."""
    return of(path) if spool.parent == path.parent else (*of(path), "--spool", spool)


@pytest.mark.parametrize("command", ["events", "doctor"])
def test_what_waits_is_delivered(place, monkeypatch, command):
    path, spool = place
    options = options_of(path, spool)
    if command == "events":
        monkeypatch.setenv("SIDELIGHT_SPOOL", str(spool))
        options = of(path)
    emit(KILLED, path, ends=signal.SIGKILL, SIDELIGHT_SPOOL=str(spool))
    said = sidelight(command, *options, columns=1000)
    commands = [each for each in printed(said.out + said.err) if each[0] == "relay"]
    assert commands, said
    assert sidelight(*commands[-1]).code == 0
    assert len(sidelight("events", "--json", *of(path)).json) == 500


def test_an_end_that_is_not_noted_is_noted(place, tmp_path, monkeypatch):
    path, spool = place
    (tmp_path / "sidelight.toml").write_text(EXPECT)
    monkeypatch.chdir(tmp_path)
    dies = 'receive("first"); assert sidelight.flush(60); os.kill(os.getpid(), signal.SIGKILL)'
    emit(dies, path, ends=signal.SIGKILL, SIDELIGHT_SPOOL=str(spool))
    asked = "overdue", *options_of(path, spool)
    said = sidelight(*asked)
    assert said.code == 3, said
    (command,) = printed(said.err)
    with serve(path, "--spool", spool) as served:
        assert "its end is not noted" in served.text("/")
    assert sidelight(*command).code == 0
    assert sidelight(*asked).code == 1
    said = sidelight("overdue", *of(path), "--spool", tmp_path / "misspelt")
    assert "misspelt was named, and does not exist" in said.err


def test_what_was_set_aside_is_listed_and_delivered(place, monkeypatch):
    path, spool = place
    emit(TWO_ORDERS, path, SIDELIGHT_SPOOL=str(spool))
    made, gone = rule(of(path)[1], "events", "NEW.artifact_id = 'poison'", name="not_welcome")
    alter(of(path)[1], made)
    emit('receive("poison"); sidelight.flush(60)', path, SIDELIGHT_SPOOL=str(spool))
    sidelight("relay", "--once", *of(path), "--spool", spool)
    asked = [
        sidelight(*words, *options_of(path, spool), columns=1000)
        for words in (["doctor"], ["spool"])
    ]
    refused = sidelight("spool", "replay", "zzz", *options_of(path, spool), columns=1000)
    (listing,) = printed(refused.err)
    assert len(sidelight(*listing, "--json").json) == 1
    alter(of(path)[1], gone)
    for said in asked:
        commands = printed(said.out + said.err)
        assert [each[:2] for each in commands[-2:]] == [LISTS, REPLAYS]
        assert len(sidelight(*commands[-2], "--json").json) in {0, 1}
        assert sidelight(*commands[-1]).code == 0
        assert sidelight(*commands[-2], "--json").json == []


def test_a_process_that_gives_no_sign_is_named_in_a_command(place, monkeypatch):
    path, spool = place
    emit(TWO_ORDERS, path, SIDELIGHT_SPOOL=str(spool))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE processes SET ended = '', last_seen = 1")
    said = sidelight("doctor", *options_of(path, spool), columns=1000)
    (command,) = [each for each in printed(said.out) if each[:2] == ["overdue", "--without"]]
    read = understood(command)
    assert settle(read["store"], spool=read["spool"]).spool == spool


@pytest.mark.parametrize("name", sorted(TAKES))
def test_a_command_reaches_the_places_that_were_asked(place, name):
    path, spool = place
    takes = set(TAKES[name])
    words = [*name.split(), *(["kafka://b:9092/t"] if name == "consume" else [])]
    words += {"replay": ["--to", "stream"], "counts": []}.get(name, [])
    bare = as_command(*words).removeprefix("sidelight ")
    url, stream = of(path)[1], "kafka://b:9092/t"
    (command,) = printed(located(f"see `sidelight {bare}`", spool, url, stream))
    read = understood(command)
    known = {"spool" if each == "directory" else each for each in PLACES & read.keys()}
    assert takes == known - ({"stream"} if name == "consume" else set())
    if "store" in takes:
        assert read["store"] == url
    if "stream" in takes:
        assert read["stream"] == stream
    if "spool" in takes:
        assert settle(url, spool=read.get("spool", read.get("directory"))).spool == spool
    named = f"`sidelight {bare} --store sqlite:///other.db`"
    assert located(named, spool, url) == named


def test_the_spool_of_a_stream_is_named_where_the_stream_is_not():
    settings = settle(stream="kafka://b:9092/t")
    (command,) = printed(
        located(f"`sidelight {' '.join(LISTS)}`", settings.spool, "", settings.stream)
    )
    assert understood(command)["directory"] == settings.spool


def test_no_option_repeats_the_environment(place, monkeypatch):
    path, spool = place
    monkeypatch.setenv("SIDELIGHT_STORE", of(path)[1])
    monkeypatch.setenv("SIDELIGHT_SPOOL", str(spool))
    for name in TAKES:
        assert located(f"`sidelight {name}`", spool, of(path)[1]) == f"`sidelight {name}`"


def messages():
    """The texts in the source that hold a command in backticks, but for docstrings."""
    for file in Path("src/sidelight").rglob("*.py"):
        text = re.sub(r'"""[\s\S]*?"""', "", file.read_text())
        for command in re.findall(r"`(sidelight [^`{\n\"]*)`", text):
            yield pytest.param(command, id=f"{file.stem}-{command}")


@pytest.mark.parametrize("command", sorted(set(messages()), key=str))
def test_a_command_in_a_message_is_understood(command):
    (words,) = printed(f"`{command}`")
    assert understood(words) is not None


def test_a_remedy_names_no_half_of_a_command():
    for remedy in REMEDIES.values():
        assert all(understood(each) is not None for each in printed(remedy))
