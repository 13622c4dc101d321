"""The quarantine: whole entries or none, one for each thing, bounded for each sink by itself."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
import time

import msgspec
import pytest

from sidelight.spool.quarantine import Entry, Quarantine

WRITER = {"instance": "me", "store": "sqlite:////events.db", "limits": [1], "resource": {"a": "b"}}


def entry(payload=b"payload", **changes):
    fields = {
        "kind": "record",
        "reason": "refused by store",
        "problem": "it does not fit",
        "refused_by": "store",
        "sinks": ("store",),
        "at": time.time_ns(),
        "writer": WRITER,
        "segment": "0123-4567",
        "offset": None,
        "payload": payload,
    }
    return Entry(**{**fields, **changes})


def stretch(payload=b"garbage", **changes):
    return entry(payload, **{"kind": "stretch", "refused_by": None, "offset": 4096, **changes})


@pytest.fixture
def quarantine(tmp_path):
    return Quarantine(tmp_path)


def kept(quarantine):
    return [each for _, each in quarantine.entries()]


def test_an_entry_is_read_as_it_was_kept(quarantine):
    there = entry()
    assert quarantine.keep(there)
    ((identity, found),) = quarantine.entries()
    assert found == there
    (file,) = quarantine.directory.iterdir()
    assert file.name == f"{identity}.msgpack"
    assert file.stat().st_mode & 0o777 == 0o600
    assert quarantine.directory.stat().st_mode & 0o777 == 0o700


def test_the_same_thing_twice_is_one_entry(quarantine):
    assert quarantine.keep(entry())
    assert not quarantine.keep(entry(problem="another"))
    assert [each.problem for each in kept(quarantine)] == ["another"]


def test_damage_keeps_the_sinks_that_met_it(quarantine):
    assert quarantine.keep(stretch(sinks=("store",)))
    assert not quarantine.keep(stretch(sinks=("traces",)))
    assert [each.sinks for each in kept(quarantine)] == [("store", "traces")]


def test_damage_that_looks_like_other_damage_is_another(quarantine):
    assert quarantine.keep(stretch())
    assert quarantine.keep(stretch(offset=8192))
    assert quarantine.keep(stretch(segment="other"))
    assert len(kept(quarantine)) == 3


def test_what_two_sinks_refuse_is_two_entries(quarantine):
    assert quarantine.keep(entry())
    assert quarantine.keep(entry(refused_by="traces", sinks=("traces",)))
    assert {each.refused_by for each in kept(quarantine)} == {"store", "traces"}


def test_the_number_is_bounded_for_each_sink_by_itself(quarantine, monkeypatch):
    monkeypatch.setattr("sidelight.spool.quarantine.LIMIT", 3)
    for n in range(3):
        assert quarantine.keep(entry(b"%d" % n))
    with pytest.raises(OSError, match="the quarantine is full") as refused:
        quarantine.keep(entry(b"one more"))
    assert refused.value.errno == errno.EDQUOT
    assert quarantine.keep(entry(refused_by="logs", sinks=("logs",)))
    assert quarantine.keep(stretch())
    assert not quarantine.keep(entry(b"1"))  # it is there already
    assert len(kept(quarantine)) == 5


def test_the_bytes_are_bounded(quarantine, monkeypatch):
    monkeypatch.setattr("sidelight.spool.quarantine.LIMIT_BYTES", 10_000)
    assert quarantine.keep(entry(bytes(6000)))
    with pytest.raises(OSError, match="full"):
        quarantine.keep(entry(bytes(6001)))


def test_what_was_discarded_makes_room(quarantine, monkeypatch):
    monkeypatch.setattr("sidelight.spool.quarantine.LIMIT", 1)
    monkeypatch.setattr("sidelight.spool.quarantine._COUNT_AGAIN", 0.0)
    quarantine.keep(entry())
    ((identity, _),) = quarantine.entries()
    quarantine.discard(identity)
    assert quarantine.keep(entry(b"another"))
    quarantine.discard(identity)  # it is gone already


def test_several_processes_share_the_bound(tmp_path, monkeypatch):
    monkeypatch.setattr("sidelight.spool.quarantine.LIMIT", 2)
    assert Quarantine(tmp_path).keep(entry(b"1"))
    assert Quarantine(tmp_path).keep(entry(b"2"))
    with pytest.raises(OSError, match="full"):
        Quarantine(tmp_path).keep(entry(b"3"))


def test_nothing_is_kept_in_memory():
    with pytest.raises(OSError, match="lies in memory"):
        Quarantine(None).keep(entry())
    assert [*Quarantine(None).entries()] == []


def test_no_room_on_the_disk_leaves_nothing_behind(quarantine, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("sidelight.spool.quarantine.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        quarantine.keep(entry())
    assert [*quarantine.directory.iterdir()] == []


def test_a_file_that_is_no_entry_is_shown_as_such(quarantine):
    quarantine.keep(entry())
    (file,) = quarantine.directory.iterdir()
    file.write_bytes(b"nonsense")
    (quarantine.directory / "notes.txt").write_text("not ours")
    assert [*quarantine.entries()] == [(file.stem, None)]
    assert quarantine.keep(entry())  # it takes the place of what was destroyed
    assert len(kept(quarantine)) == 1


def test_a_later_state_takes_the_place_of_an_earlier_one(quarantine):
    quarantine.keep(stretch(sinks=("store", "traces")))
    ((identity, there),) = quarantine.entries()
    quarantine.replace(identity, msgspec.structs.replace(there, sinks=("traces",)))
    assert [(i, each.sinks) for i, each in quarantine.entries()] == [(identity, ("traces",))]


def test_what_a_killed_process_left_unfinished_goes_in_time(quarantine, monkeypatch):
    quarantine.keep(entry())
    unfinished = quarantine.directory / ".0-store.msgpack.1.new"
    unfinished.write_bytes(b"half")
    monkeypatch.setattr("sidelight.spool.quarantine._COUNT_AGAIN", 0.0)
    quarantine.keep(entry(b"2"))
    assert unfinished.exists()  # somebody may be at it
    os.utime(unfinished, (0, 0))
    quarantine.keep(entry(b"3"))
    assert not unfinished.exists()


def test_killed_at_any_moment_it_holds_whole_entries_only(tmp_path):
    script = """
        import sys
        from pathlib import Path
        from tests.spool.test_quarantine import entry
        from sidelight.spool.quarantine import Quarantine
        quarantine = Quarantine(Path(sys.argv[1]))
        for n in range(10**6):
            quarantine.keep(entry(n.to_bytes(4, "big") * 20_000))
            print(n, flush=True)
        """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)], stdout=subprocess.PIPE
    )
    try:
        reported = [int(child.stdout.readline()) for _ in range(20)][-1]
    finally:
        child.send_signal(signal.SIGKILL)
        rest, _ = child.communicate()
    reported += len(rest.split())
    found = kept(Quarantine(tmp_path))
    assert None not in found
    numbers = {int.from_bytes(each.payload[:4], "big") for each in found}
    assert numbers >= set(range(reported + 1))
