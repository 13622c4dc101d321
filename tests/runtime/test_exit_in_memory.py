"""Records that only the memory of a process holds at its normal end: stored, or counted as lost."""

import errno
import json
import os
import re
import subprocess
import sys

import pytest
from tests.spool.test_spool import FullDisk, payloads_of, write
from tests.support.commands import sidelight, wrong
from tests.support.disks import small_disk
from tests.support.platforms import needs_spool_files

from sidelight import Store
from sidelight.record import frame
from sidelight.spool import PAGE, SMALLEST, Scanner, Segment, Spool, segments_in

pytestmark = needs_spool_files
READ = 100
PROGRAM = """
import json, resource, sys
import sidelight
settings, limits, calls = json.loads(sys.argv[1])
sidelight.configure(**settings)
@sidelight.emits("decorated", n=sidelight.arg.n)
def call(n): pass
receipts = [sidelight.emit("first", n=0)]
for name, limit in limits.items():
    resource.setrlimit(getattr(resource, name), (limit, limit))
for n in range(calls):
    receipts.append(sidelight.emit("emitted", n=n, pad="z" * 200))
    call(n)
states = [receipt.state for receipt in receipts]
print(json.dumps({each: states.count(each) for each in states}))
"""


def run(calls, limits=None, **settings):
    """Run the program to its normal end; return how many receipts say what, and its stderr."""
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps([settings, limits or {}, calls])],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return json.loads(ran.stdout), ran.stderr


def stored_and_lost(url):
    """Deliver what is left in files; return how many events are stored, and counted as lost."""
    assert sidelight("relay", "--once", "--store", url).code == 0
    with Store(url) as store:
        lost = {each.reason: each.count for each in store.losses()}
        return store.size(), lost.get("lost at exit: store", 0)


def test_without_a_descriptor_an_open_file_takes_what_was_in_memory(tmp_path):
    url = f"sqlite:///{tmp_path / 'events.db'}"
    states, _ = run(8000, {"RLIMIT_NOFILE": 3}, store=url)
    assert states.get("volatile")
    assert stored_and_lost(url) == (16_001, 0)
    assert "kept in memory: Too many open files" in wrong("losses", "--store", url)


def test_what_finds_no_room_is_counted_where_files_may_not_be_so_large(tmp_path):
    """The page that is kept free for the losses lies behind the limit as well."""
    url = f"sqlite:///{tmp_path / 'events.db'}"
    states, told = run(4000, {"RLIMIT_FSIZE": 50_000}, store=url)
    stored, lost = stored_and_lost(url)
    assert stored + lost == 8001
    assert 0 < lost <= 2 * states["volatile"] + 1  # a receipt for each second event
    assert f"lost at exit: store, {lost} times" in told


@pytest.mark.parametrize("relay", ["thread", "external"])
def test_on_a_full_disk_what_is_lost_is_counted(relay, tmp_path):
    path = tmp_path / "disk"
    with small_disk(path, 3):
        url = f"sqlite:///{path / 'events.db'}"
        states, told = run(8000, store=url, relay=relay)
        subprocess.run(["mount", "-o", "remount,size=64m", path], check=True)
        stored, lost = stored_and_lost(url)
        assert stored + lost == 16_001
        assert lost > 1000
        assert states.get("spooled", 0) + states.get("stored", 0) <= stored
        assert f"lost at exit: store, {lost} times" in told
        assert f"lost at exit: store: {lost:,} times" in wrong("losses", "--store", url)
        with Store(url) as store:
            assert {each.ended for each in store.processes()} == {"exited"}


def test_without_any_file_the_store_is_told(tmp_path):
    """It takes in a half second what it can. On a quick machine that may be everything."""
    (tmp_path / "spool").write_text("in the way")
    url = f"sqlite:///{tmp_path / 'events.db'}"
    states, told = run(5_000, store=url, spool=str(tmp_path / "spool"))
    assert "spooled" not in states
    logged = re.search(r"lost at exit: store, (\d+) times", told)
    with Store(url) as store:
        stored = store.size()
        counted = [each.count for each in store.losses() if each.reason == "lost at exit: store"]
    if logged and not counted:  # on a busy machine the last batch may go on beyond the end
        assert stored + int(logged[1]) >= 10_001
    else:
        assert stored + sum(counted) == 10_001


CUT = """
import os, sys, time
import sidelight
sidelight.configure(sys.argv[1])
sidelight.emit("before")
assert sidelight.flush(60)
spool = sys.argv[1].removeprefix("sqlite:///") + "-spool"
for name in os.listdir(spool):
    if name.endswith(".segment"):
        os.truncate(os.path.join(spool, name), int(sys.argv[2]))
from sidelight.runtime import RUNTIME
until = time.monotonic() + 60
while len(RUNTIME.spool.own) == 1 and time.monotonic() < until:
    time.sleep(0.01)
assert all(sidelight.emit("after").state != "lost" for _ in range(5000))
assert sidelight.flush(60)
"""


@pytest.mark.parametrize("size", [0, 4096, 8192])
def test_a_process_lives_where_its_relay_sees_a_cut_file_before_the_next_write(size, tmp_path):
    url = f"sqlite:///{tmp_path / 'events.db'}"
    command = [sys.executable, "-c", CUT, url, str(size)]
    subprocess.run(command, check=True, timeout=120)
    with Store(url) as store:
        assert store.size() == 5001
        assert "segment deleted under its writer" in {each.reason for each in store.losses()}


class NearlyFullDisk(FullDisk):
    """Gives no new file, and lets files grow up to a size."""

    most = 1 << 40

    def write(self, fd, data, offset):
        if offset + len(data) > self.most:
            if offset < self.most:
                super().write(fd, data[: self.most - offset], offset)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(fd, data, offset)


@pytest.mark.parametrize("grows_by", [0, 2000, 300_000, 1 << 30])
@pytest.mark.parametrize("has_read", [False, True])
def test_a_file_takes_what_it_has_room_for(grows_by, has_read, tmp_path):
    """The page behind the last frame stays for the ledger, also where no frame finds room."""
    disk, lost, told = NearlyFullDisk(), {}, []
    spool = Spool(tmp_path, {"sinks": ["store"]}, disk=disk)
    payloads = [b"%06d" % n + b"x" * 900 for n in range(2000)]
    write(spool, payloads[0])
    if has_read:  # all of the first segment, before it was trimmed
        spool.own[0].advance("store", SMALLEST - PAGE)
    for number, payload in enumerate(payloads[1:], 1):
        if number == READ:
            disk.full = True
            spool.rotate(spool.own[-1])
        write(spool, payload)

    def on_lost(rescue, by_sink):
        lost.update(by_sink)
        told.append(rescue.cause)
        rescue.append(frame(b"ledger"))

    spool.on_lost = on_lost
    spool.seal()
    disk.most = spool.own[0].size + grows_by
    spool.close()
    (path,) = segments_in(tmp_path)
    left = Segment.adopt(path, disk)
    found = payloads_of(left)
    scanner = Scanner(left, left.cursors["store"])
    assert scanner.batch(9999).payloads == found[READ * has_read :]
    left.close()
    assert found == payloads[: len(payloads) - lost.get("store", 0)] + [b"ledger"] * bool(lost)
    assert bool(lost) == (grows_by < 1 << 30)
    assert told == ["No space left on device"] * bool(lost)
