"""The quarantine: whole entries or none, one for each record, limited for each sink."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import msgspec
import pytest
from tests.support.platforms import needs_spool_files

from sidelight.spool import DISK, Entry, Quarantine

WRITER = {"instance": "me", "store": "sqlite:////events.db", "limits": [1], "resource": {"a": "b"}}
MODULE = "sidelight.spool.quarantine"


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
def quarantine(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{MODULE}._COUNT_AGAIN", 0.0)
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


@pytest.mark.parametrize(
    ("first", "second", "left"),
    [
        (entry(), entry(problem="another"), [("another", ("store",))]),
        (
            stretch(sinks=("store",)),
            stretch(sinks=("traces",)),
            [("it does not fit", ("store", "traces"))],
        ),
    ],
)
def test_the_same_thing_twice_is_one_entry(quarantine, first, second, left):
    assert quarantine.keep(first)
    assert not quarantine.keep(second)
    assert [(each.problem, each.sinks) for each in kept(quarantine)] == left


@pytest.mark.parametrize(
    "entries",
    [
        (stretch(), stretch(offset=8192), stretch(segment="other")),
        (entry(), entry(refused_by="traces", sinks=("traces",))),
    ],
    ids=["damage in several places", "refused by several sinks"],
)
def test_different_things_are_several_entries(quarantine, entries):
    assert all(map(quarantine.keep, entries))
    assert len(kept(quarantine)) == len(entries)


def test_the_number_is_limited_for_each_sink_and_all_processes(quarantine, tmp_path, monkeypatch):
    monkeypatch.setattr(f"{MODULE}.LIMIT", 3)
    for n in range(3):
        assert Quarantine(tmp_path).keep(entry(b"%d" % n))
    with pytest.raises(OSError, match="the quarantine is full") as refused:
        quarantine.keep(entry(b"one more"))
    assert refused.value.errno == errno.EDQUOT
    assert quarantine.keep(entry(refused_by="logs", sinks=("logs",)))
    assert quarantine.keep(stretch())
    assert not quarantine.keep(entry(b"1"))  # it is there already
    identity, _ = next(quarantine.entries())
    for _ in range(2):  # the second time it is gone already
        quarantine.discard(identity)
    assert quarantine.keep(entry(b"one more"))


def test_the_bytes_are_limited(quarantine, monkeypatch):
    monkeypatch.setattr(f"{MODULE}.LIMIT_BYTES", 10_000)
    assert quarantine.keep(entry(bytes(6000)))
    with pytest.raises(OSError, match="full"):
        quarantine.keep(entry(bytes(6001)))


def test_a_spool_in_memory_keeps_nothing():
    with pytest.raises(OSError, match="lies in memory"):
        Quarantine(None).keep(entry())
    assert [*Quarantine(None).entries()] == []


def test_a_full_disk_leaves_nothing_behind(quarantine, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("sidelight.spool.system.sync_data", full)
    with pytest.raises(OSError, match="No space left"):
        quarantine.keep(entry())
    assert [*quarantine.directory.iterdir()] == []


def test_a_file_that_is_no_entry_is_shown_as_such_and_replaced(quarantine):
    quarantine.keep(entry())
    (file,) = quarantine.directory.iterdir()
    file.write_bytes(b"nonsense")
    (quarantine.directory / "notes.txt").write_text("of the user")
    assert [*quarantine.entries()] == [(file.stem, None)]
    assert quarantine.keep(entry())
    assert len(kept(quarantine)) == 1


def test_an_entry_is_changed_as_it_is_now(quarantine, tmp_path):
    quarantine.keep(stretch(sinks=("store",)))
    ((identity, listed),) = quarantine.entries()
    Quarantine(tmp_path).keep(stretch(sinks=("traces",)))
    assert quarantine.read(identity).sinks == ("store", "traces")

    def without_store(now):
        return msgspec.structs.replace(now, sinks=tuple({*now.sinks} - {*listed.sinks}))

    quarantine.change(identity, without_store)
    assert [(i, each.sinks) for i, each in quarantine.entries()] == [(identity, ("traces",))]
    quarantine.change(identity, lambda _: None)
    assert kept(quarantine) == []
    assert quarantine.read(identity) is None
    quarantine.change(identity, pytest.fail)  # it is gone already


@needs_spool_files
def test_nobody_adds_to_an_entry_while_it_is_changed(quarantine, tmp_path):
    """Another process has another `Quarantine`, and its locks exclude the threads of this one."""
    quarantine.keep(stretch(sinks=("store",)))
    ((identity, _),) = quarantine.entries()
    other = threading.Thread(target=lambda: Quarantine(tmp_path).keep(stretch(sinks=("traces",))))

    def delete(_):
        other.start()
        other.join(0.2)
        assert other.is_alive()

    quarantine.change(identity, delete)
    other.join(10)
    assert [each.sinks for each in kept(quarantine)] == [("traces",)]
    assert len([*quarantine.directory.iterdir()]) == 1  # the lock leaves no file


@needs_spool_files
def test_a_process_that_was_stopped_in_a_change_blocks_no_other_for_long(quarantine, monkeypatch):
    monkeypatch.setattr(f"{MODULE}._PATIENCE", 0.1)
    quarantine.keep(entry())
    fd = DISK.open(quarantine.directory, writable=False)
    try:
        assert DISK.lock(fd)
        assert quarantine.keep(entry(b"another"))
    finally:
        DISK.close(fd)
    assert len(kept(quarantine)) == 2


def test_a_filesystem_without_locks(quarantine, monkeypatch):
    def fail(_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(DISK, "lock", fail)
    assert quarantine.keep(entry())
    assert len(kept(quarantine)) == 1


def test_an_unfinished_file_of_a_killed_process_is_deleted_after_an_hour(quarantine):
    quarantine.keep(entry())
    unfinished = quarantine.directory / ".0-store.msgpack.1.new"
    unfinished.write_bytes(b"half")
    quarantine.keep(entry(b"2"))
    assert unfinished.exists()  # its process may live
    os.utime(unfinished, (0, 0))
    quarantine.keep(entry(b"3"))
    assert not unfinished.exists()


def test_killed_at_any_moment_it_holds_whole_entries_only(tmp_path):
    script = """
        import sys
        from pathlib import Path
        from tests.spool.test_quarantine import entry
        from sidelight.spool import Quarantine
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
