"""A command that an answer prints does, typed as it is, what the answer says."""

import re
import shlex
import signal

import pytest
from tests.support.commands import KILLED, emit, of, sidelight


def printed(text):
    """The commands of a relay in a text, as words behind the program's name."""
    found = re.findall(r"`(sidelight relay --once[^`]*)`", text)
    return [shlex.split(each)[1:] for each in found]


@pytest.mark.parametrize("command", ["events", "doctor"])
@pytest.mark.parametrize("place", ["beside", "elsewhere"])
def test_what_waits_is_delivered(tmp_path, monkeypatch, command, place):
    """The environment names no store, and the paths have a space."""
    (folder := tmp_path / "a b").mkdir()
    path, spool = folder / "events.db", tmp_path / "the spool"
    options = of(path)
    environment = {"SIDELIGHT_SPOOL": str(spool)} if place == "elsewhere" else {}
    if place == "elsewhere" and command == "events":
        monkeypatch.setenv("SIDELIGHT_SPOOL", str(spool))
    elif place == "elsewhere":
        options = (*options, "--spool", spool)
    emit(KILLED, path, ends=signal.SIGKILL, **environment)
    said = sidelight(command, *options, columns=1000)
    commands = printed(said.out + said.err)
    assert commands
    assert sidelight(*commands[-1]).code == 0
    assert len(sidelight("events", "--json", *of(path)).json) == 500
