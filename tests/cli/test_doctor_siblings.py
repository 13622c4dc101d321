"""Records in another default spool of the user are named, with the command that delivers them."""

import re
import shlex
import signal

import pytest
from tests.support.commands import KILLED, emit, printed, sidelight
from tests.support.crafted import segment_in
from tests.support.postgres import new_database
from tests.support.stored import record, store

from sidelight.record import DEFAULT_SPOOL
from sidelight.settings import public_url, settle


@pytest.mark.parametrize("is_same", [True, False], ids=["this store", "another store"])
def test_records_in_a_sibling(is_same, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    url = new_database()
    monkeypatch.setenv("SIDELIGHT_STORE", url)
    store(url, [record()])
    killed = KILLED.replace('relay="external"', f'"{url}", relay="external"')
    emit(killed, url if is_same else new_database(), ends=signal.SIGKILL)
    (own,) = (tmp_path / "sidelight").iterdir()
    assert own == settle().spool
    before = own.with_name(f"{DEFAULT_SPOOL}before")
    own.rename(before)
    if not is_same:
        monkeypatch.setenv("SIDELIGHT_STORE", url := new_database())
        store(url, [record()])
    said = sidelight("doctor", columns=1000)
    assert said.code == int(is_same)
    assert "500 records" in said.out
    assert str(before) in said.out
    assert sidelight(*_printed(said.out)).code == 0
    said = sidelight("doctor", columns=1000)
    assert said.code == 0
    assert str(before) not in said.out


def _printed(text):
    """The words behind `sidelight` of the command that delivers the records of another spool."""
    return shlex.split(re.search(r"`sidelight (relay --once[^`]*)` delivers them", text)[1])


@pytest.mark.parametrize("place", ["named", "default", "beside"])
def test_records_for_another_store_in_the_state_directory(place, tmp_path, monkeypatch):
    """Wherever the store that is asked lies, what a killed process left for another is named."""
    state = tmp_path / "state" / "sidelight"
    state.mkdir(parents=True, mode=0o700)
    left = state / ("events.db" if place == "beside" else "spool-0123abcd")
    other = f"sqlite:///{state / 'events.db' if place == 'beside' else tmp_path / 'other.db'}"
    environment = {} if place == "beside" else {"SIDELIGHT_SPOOL": str(left)}
    emit(KILLED, other, ends=signal.SIGKILL, **environment)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    asked = f"sqlite:///{state / 'events.db' if place == 'default' else tmp_path / 'asked.db'}"
    if place != "default":
        monkeypatch.setenv("SIDELIGHT_STORE", asked)
    store(asked, [record()])
    said = sidelight("doctor", columns=1000)
    assert f"for {other}, of processes that have ended, are in {state}" in said.out
    assert said.code == 0
    assert sidelight(*_printed(said.out)).code == 0
    assert "of processes that have ended" not in sidelight("doctor", columns=1000).out


@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "in another directory"])
def test_records_beside_a_link_to_the_store(elsewhere, tmp_path):
    """The doctor of each name sees what a killed process has left beside the other."""
    (tmp_path / "other").mkdir()
    real, link = tmp_path / "real.db", tmp_path / ("other/link.db" if elsewhere else "link.db")
    store(f"sqlite:///{real}", [record()])
    link.symlink_to(real)
    for left, asked in [(real, link), *([] if elsewhere else [(link, real)])]:
        emit(KILLED, left, ends=signal.SIGKILL)
        said = sidelight("doctor", "--store", f"sqlite:///{asked}", columns=1000)
        assert said.code == 1
        assert f"are in {left}-spool" in said.out
        assert sidelight(*_printed(said.out)).code == 0
        assert not list(left.with_name(f"{left.name}-spool").glob("*.segment"))


def test_names_that_lead_nowhere_stop_no_doctor(tmp_path):
    """A directory that is missing, and links in a circle."""
    (tmp_path / "one.db").symlink_to("other.db")
    (tmp_path / "other.db").symlink_to("one.db")
    (tmp_path / "one.db-spool").mkdir(mode=0o700)
    for path in (tmp_path / "missing" / "events.db", tmp_path / "events.db"):
        said = sidelight("doctor", "--store", f"sqlite:///{path}", columns=1000)
        assert said.code == 1
        assert "there is no store at" in said.out


def test_many_spools_of_other_stores_are_one_note(tmp_path, monkeypatch):
    """What is wrong, and a spool that cannot be read, stay as they are; JSON names each spool."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    state, asked = tmp_path / "sidelight", f"sqlite:///{tmp_path / 'asked.db'}"
    state.mkdir(mode=0o700)
    store(asked, [record()])
    for n in range(1, 4):
        other = state / f"{DEFAULT_SPOOL}{n}"
        segment_in(other, f"sqlite:///{tmp_path / f'{n}.db'}", [], count=0, sinks=["store"])
        segment_in(other, f"sqlite:///{tmp_path / f'{n}.db'}")
        told = sidelight("doctor", "--store", asked, columns=1000)
        whole = sidelight("doctor", "--json", "--store", asked).json
        notes = [each for each in whole if "no relay of that spool" in each["message"]]
        assert (told.code, len(notes)) == (0, n)
        assert told.out.count("no relay of that spool") == (n if n < 3 else 0)
    (line,) = [each for each in told.out.splitlines() if "3 other spools of this user" in each]
    assert line.startswith("!")
    (command,) = [each for each in printed(told.out) if each[:2] == ["doctor", "--json"]]
    assert len([e for e in sidelight(*command).json if "that spool" in e["message"]]) == 3
    segment_in(state / f"{DEFAULT_SPOOL}4", asked)
    said = sidelight("doctor", "--store", asked, columns=1000)
    assert said.code == 1
    assert "3 other spools" in said.out
    assert said.out.count("no relay of this store") == 1


@pytest.mark.parametrize("how", ["named", "in the environment"])
@pytest.mark.parametrize(
    "url", ["postgresql://u:geheim@127.0.0.1:1/d", "postgresql://127.0.0.1:1/d?password=geheim"]
)
def test_a_command_says_that_it_needs_the_password(url, how, tmp_path, monkeypatch):
    spool, hint = tmp_path / "spool", "(with the password in place of ***)"
    segment_in(spool, public_url(url))
    options = ["--spool", spool]
    if how == "named":
        options += ["--store", url]
    else:
        monkeypatch.setenv("SIDELIGHT_STORE", url)
    for said in (
        sidelight("doctor", *options, columns=1000),
        sidelight("spool", *options, columns=1000),
        sidelight("overdue", "--after", "a", "--expect", "b", "--within", "1s", *options),
    ):
        text = said.out + said.err
        masked = [each for each in printed(text) if any("***" in word for word in each)]
        assert "geheim" not in text
        assert bool(masked) == (hint in text), text
    (told,) = [
        each
        for each in sidelight("doctor", "--json", *options).json
        if each["check"] == "backlog" and "which has ended" in each["message"]
    ]
    assert (hint in told["remedy"]) == (how == "named"), told
