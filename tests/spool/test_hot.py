"""Hot segments: written on a tmpfs, copied to the disk, adopted from either."""

import os
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from tests.support.commands import sidelight
from tests.support.platforms import needs_tmpfs

from sidelight import Store
from sidelight.exceptions import ConfigurationError
from sidelight.record import frame
from sidelight.spool import HotSegment, Scanner, Segment, Spool, hot_directory
from sidelight.spool.directory import segments_in
from sidelight.spool.header import PAGE

TMPFS = Path("/dev/shm")
META = {"instance": "i", "sinks": ["store"]}
pytestmark = needs_tmpfs


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "spool"


@pytest.fixture
def hot(directory):
    directory.mkdir(mode=0o700)
    hot = hot_directory(str(TMPFS), directory)
    yield hot
    shutil.rmtree(hot, ignore_errors=True)


@pytest.fixture
def counts():
    return []


@pytest.fixture
def spools(directory, hot, counts):
    """Open spools that are closed in the end."""
    opened = []

    def spool(*, hot=hot, **meta):
        count = lambda reason, _: counts.append(reason)  # noqa: E731
        opened.append(Spool(directory, {**META, **meta}, hot=hot, count=count))
        return opened[-1]

    yield spool
    for each in opened:
        each.close()


def payloads(path):
    batch = Scanner(Segment.inspect(path), PAGE).batch(1000)
    assert not batch.damaged
    return batch.payloads


def die(spool):
    """Let go of everything, as the kernel does for a process that is killed."""
    for segment in (*spool.own, *spool.supply.spares):
        segment.close()
    spool.own.clear()


@pytest.mark.parametrize("named", ["here", "nowhere", "a disk"])
def test_what_is_no_tmpfs_is_refused(named, tmp_path):
    root = {"here": tmp_path / "file", "nowhere": tmp_path / "nowhere", "a disk": Path("/usr")}[
        named
    ]
    if named == "here":
        root.touch()
    with pytest.raises(ConfigurationError, match=f"hot.*{root}.*tmpfs"):
        hot_directory(str(root), tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere: run it as another user")
def test_a_tmpfs_that_is_not_writable_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be made"):
        hot_directory("/run", tmp_path)


def test_the_directory_is_private_or_refused(hot, directory):
    assert hot.stat().st_mode & 0o777 == 0o700
    hot.chmod(0o770)
    with pytest.raises(ConfigurationError, match="others may use it"):
        hot_directory(str(TMPFS), directory)
    hot.rmdir()
    hot.symlink_to(directory)
    with pytest.raises(ConfigurationError, match="belongs to another"):
        hot_directory(str(TMPFS), directory)
    hot.unlink()


def test_the_copy_has_everything_after_each_round(spools, directory):
    spool, written = spools(), []
    for number in range(5):
        written.append(b"record %d" % number)
        spool.append(frame(written[-1]))
        assert spool.copy_hot()
        (copy,) = directory.glob("*.segment")
        assert payloads(copy) == written
        assert copy.stat().st_mode & 0o777 == 0o600


def test_a_hot_segment_stands_for_its_copy(spools, directory, hot):
    spool = spools()
    spool.append(frame(b"one"))
    spool.copy_hot()
    spool.append(frame(b"two"))
    (path,) = segments_in(directory)
    assert path.parent == hot
    die(spool)
    other = spools(hot=None)  # finds it by the link, without the setting
    other.adopt()
    (segment,) = other.adopted
    assert isinstance(segment, HotSegment)
    other.copy_hot()
    (segment,) = other.adopted
    assert segment.path == directory / path.name
    assert payloads(segment.path) == [b"one", b"two"]
    assert not list(hot.glob("*.segment"))


def test_after_a_crash_of_the_machine_the_copy_is_adopted(spools, directory, hot):
    spool = spools()
    spool.append(frame(b"one"))
    spool.copy_hot()
    spool.append(frame(b"two"))
    die(spool)
    shutil.rmtree(hot)
    other = spools(hot=None)
    other.adopt()
    (segment,) = other.adopted
    assert segment.path.parent == directory
    assert payloads(segment.path) == [b"one"]


def test_a_full_segment_moves_to_the_disk(spools, directory, hot):
    spool = spools()
    spool.append(frame(b"one"))
    spool.rotate(spool.own[0])
    spool.copy_hot()
    full, current = spool.own
    assert (full.path.parent, current.path.parent) == (directory, hot)
    assert payloads(full.path) == [b"one"]
    full.advance("store", full.size)
    full.delivered_to.add("store")
    spool.discard(spool.delivered(["store"]))
    assert not full.path.exists()


def test_an_external_relay_copies_what_it_follows(spools, directory, hot):
    writer, relay = spools(relay="external"), spools(hot=None, role="relay")
    writer.append(frame(b"one"))
    relay.adopt()
    relay.copy_hot()
    copies = [path for path in directory.glob("*.segment") if payloads(path)]
    assert [payloads(path) for path in copies] == [[b"one"]]
    writer.append(frame(b"two"))
    relay.copy_hot()
    assert payloads(copies[0]) == [b"one", b"two"]
    die(writer)
    relay.adopt()
    relay.copy_hot()
    assert not list(hot.glob("*.segment"))
    assert payloads(copies[0]) == [b"one", b"two"]


def test_one_relay_reads_what_an_external_writer_left(spools, hot):
    """The relay that has copied a segment holds the copy, and is no live writer to the others."""
    writer = spools(relay="external")
    relay, other = spools(hot=None, role="relay"), spools(hot=None, role="relay")
    writer.append(frame(b"one"))
    relay.adopt()
    die(writer)
    relay.adopt()
    relay.copy_hot()
    other.adopt()
    assert not list(hot.glob("*.segment"))
    assert (len(relay.adopted), len(other.adopted)) == (1, 0)


def test_without_a_relay_full_segments_stay_up_to_a_limit(spools, directory, hot, monkeypatch):
    """The caller copies nothing: it would wait for the disk."""
    monkeypatch.setattr("sidelight.spool.supply._HOT_LIMIT", 3 * 1024 * 1024)
    spool = spools(relay="external")
    for number in range(5):
        spool.append(frame(b"%d" % number))
        spool.rotate(spool.own[-1])
    assert len(list(hot.glob("*.segment"))) == 3
    assert [payloads(path) for path in segments_in(directory)][:5] == [
        [b"%d" % n] for n in range(5)
    ]


def test_what_is_left_at_the_end_lies_on_the_disk(spools, directory, hot):
    spool = spools()
    spool.append(frame(b"one"))
    spool.close()
    assert [payloads(path) for path in directory.glob("*.segment")] == [[b"one"]]
    assert not list(hot.glob("*.segment"))


def test_where_the_tmpfs_has_no_room_the_segment_lies_on_the_disk(spools, directory, hot, counts):
    shutil.rmtree(hot)
    hot.touch()
    spool = spools()
    hot.unlink()
    assert spool.own[0].path.parent == directory
    assert any(reason.startswith("hot segment on the disk") for reason in counts)


def test_a_spool_that_is_deleted_gets_a_new_copy(spools, directory, hot):
    spool = spools()
    spool.append(frame(b"one"))
    spool.copy_hot()
    shutil.rmtree(directory)
    with pytest.raises(FileNotFoundError):
        spool.copy_hot()
    spool.copy_hot()
    assert [payloads(path) for path in directory.glob("*.segment")] == [[b"one"]]
    assert segments_in(directory)[0].parent == hot


KILLED = """
import os, sidelight, sys, time
sidelight.configure(f"sqlite:///{sys.argv[1]}/events.db", relay=sys.argv[2])
child = sys.argv[3] == "child" and os.fork()
for number in range(200):
    sidelight.emit("made", artifact_id=f"{bool(child)}{number}")
if child: os.wait()
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("relay", ["thread", "external"])
@pytest.mark.parametrize("who", ["alone", "child"])
def test_nothing_is_lost_with_a_killed_process(relay, who, tmp_path):
    environment = {**os.environ, "SIDELIGHT_HOT": str(TMPFS)}
    spool = tmp_path / "events.db-spool"
    spool.mkdir(mode=0o700)
    hot = hot_directory(str(TMPFS), spool)
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path), relay, who]
    subprocess.run(command, env=environment, check=False)
    url = f"sqlite:///{tmp_path}/events.db"
    until = time.monotonic() + 20
    while not list(spool.glob("*.hot")) and time.monotonic() < until:
        time.sleep(0.01)
    assert sidelight("relay", "--once", "--store", url).code == 0
    with Store(url) as store:
        assert sum(1 for _ in store.events()) == 200 * (1 + (who == "child"))
    assert not list(hot.iterdir())
    hot.rmdir()
