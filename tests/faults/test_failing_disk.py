"""Row 9: no file can be opened, disks are read-only and fail, the spool's directory is removed."""

import contextlib
import errno
import os
import re
import resource
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
from tests.support.collector import Collector, require_collector
from tests.support.commands import wrong
from tests.support.disks import small_disk
from tests.support.emitting import Order
from tests.support.preludes import SMALL, padded
from tests.support.programs import (
    all_arrive,
    caught_up,
    deliver,
    judge,
    nothing_left,
    running,
    wait_for_the_disk,
)
from tests.support.shim import Shim

ORDER = Order(pause=0.01, prelude=padded(40), configure={"spool_limit": SMALL})
"""About 25 calls fill a segment, so that the supply of segments is soon used up."""


@contextlib.contextmanager
def no_more_files(_disk, _store, *programs):
    """EMFILE: no file can be opened, and open files stay open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for each in programs:
        resource.prlimit(each.process.pid, resource.RLIMIT_NOFILE, (3, hard))
    yield
    for each in programs:
        resource.prlimit(each.process.pid, resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def read_only(disk, *_):
    """EROFS: no file can be created or opened for writing."""
    with disk.read_only():
        yield


@contextlib.contextmanager
def removed(disk, store, _relaying, relayed):
    """ENOENT: the directory of the segments is removed.

    The fault waits until the store has all records, because a segment that no process has
    open is lost with its name.
    """
    relayed.pause()
    all_arrive(store, relayed)
    shutil.rmtree(disk.path / "spool")
    relayed.resume()
    yield


FAULTS = (
    (no_more_files, "limits", "RLIMIT_NOFILE"),
    (read_only, "spool", "read-only filesystem"),
    (removed, "losses", "segment deleted under its writer"),
)


def test_the_spool_cannot_be_written(store, tmp_path, full, progress, settled):
    """One program has a relay, and delivers also for another program without one."""
    faults = FAULTS * (10 if full else 1)
    external = replace(ORDER, first=10**8, configure={"relay": "external", "spool_limit": SMALL})
    with small_disk(tmp_path / "disk", 96) as disk:
        spool = disk.path / "spool"
        with (
            running(store, spool, order=ORDER) as relaying,
            running(store, spool, order=external) as relayed,
        ):
            relayed.emit(20)
            caught_up(store, relaying, relayed)
            for number, (inject, check, words) in enumerate(faults):
                progress(f"{number} of {len(faults)}")
                with inject(disk, store, relaying, relayed):
                    relayed.emit(60)
                    assert words in wrong(check, "--store", store, "--spool", spool)
                wait_for_the_disk(relaying, spool)
                wait_for_the_disk(relayed, spool)
                all_arrive(store, relaying, relayed)
            relaying.emit(20)
            relaying.kill()
            relayed.emit(20)
            assert relayed.stop() == 0, relayed.told()
        verdict = settled(
            9,
            "EMFILE, EROFS, directory removed",
            store,
            relaying,
            relayed,
            injected=len(faults),
            spool=spool,
        )
        assert verdict.let_go == 0


def test_a_program_begins_where_its_spool_cannot_be(tmp_path, settled):
    """A file has the name of the spool. The program emits to memory, then to the disk."""
    store, spool = f"sqlite:///{tmp_path / 'events.db'}", tmp_path / "spool"
    spool.write_text("in the way")
    with running(store, spool, order=ORDER) as program:
        program.emit(40)
        caught_up(store, program)
        assert "kept in memory" in wrong("spool", "--store", store, "--spool", spool)
        spool.unlink()
        wait_for_the_disk(program, spool)
        all_arrive(store, program)
        program.emit(20)
        program.kill()
    verdict = settled(9, "begun with a file in the way", store, program, injected=1, spool=spool)
    assert verdict.let_go == 0


STARVED = """
import resource
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
{}
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
"""
"""The process can open no file, so that it can import no module."""


BEGINNINGS = {"configured": "sidelight.configure()", "emitting": "call(-9); time.sleep(0.5)"}


@pytest.mark.parametrize("how", BEGINNINGS)
def test_a_program_begins_where_no_file_can_be_opened(how, tmp_path, settled):
    """The relay starts later, because its libraries could not be imported."""
    store, spool = f"sqlite:///{tmp_path / 'events.db'}", tmp_path / "spool"
    order = replace(ORDER, first=100, prelude=STARVED.format(BEGINNINGS[how]), configure=None)
    with running(store, spool, order=order) as program:
        program.emit(20)
        all_arrive(store, program)
        program.kill()
    verdict = settled(
        9, f"begun where no file can be opened, {how}", store, program, injected=1, spool=spool
    )
    assert verdict.let_go == 0


def test_a_program_begins_where_its_exporters_cannot_be_imported(tmp_path, row):
    """The exporters start later, as the store does."""
    require_collector()
    store, spool = f"sqlite:///{tmp_path / 'events.db'}", tmp_path / "spool"
    known = "import sidelight.relay.relay, sidelight.runtime.outboxes, sidelight.store.sink\n"
    starved = known + STARVED.format("sidelight.configure()")
    with Collector() as collector:
        order = Order(calls=100, prelude=starved, configure=None, finale="time.sleep(60)")
        to = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.http_endpoint}
        with running(store, spool, order=order, environment=to) as program:
            program.emit(100)
            assert len(collector.logs(at_least=100)) == 100
            program.kill()
        deliver(store, spool, otlp=collector.http_endpoint)
    row(9, "begun without exporters", injected=1, verdict=judge(store, program))
    nothing_left(store, spool)


SPOOL = {
    "open": errno.EIO,
    "write": errno.EIO,
    "sync": errno.EIO,
    "allocate": errno.EDQUOT,
    "map": errno.ENOMEM,
    "rename": errno.EROFS,
    "unlink": errno.EPERM,
    "read": errno.EIO,
}
STORE = {
    "open": (errno.EMFILE, "unable to open database file|Too many open files"),
    "write": (errno.EIO, "disk I/O error"),
    "sync": (errno.EIO, "Input/output error|disk I/O error"),
    "read": (errno.EIO, "disk I/O error"),
}


def fail(shim, call, error, under, program):
    """Let a system call fail while a program emits, until the program has met the error."""
    before = shim.met(call)
    shim.fail(call, error, under)
    program.emit(40)
    while shim.met(call) == before:
        program.emit(5)


@pytest.fixture
def shim(tmp_path):
    return Shim(tmp_path)


def test_each_call_fails_in_the_spool(tmp_path, shim, full, progress, settled):
    """Each error lasts less than the 5 s after which a segment counts as unreadable."""
    store, spool = f"sqlite:///{tmp_path / 'events.db'}", tmp_path / "spool"
    rounds = 10 if full else 1
    with running(store, spool, order=ORDER, environment=shim.environment) as program:
        program.emit(20)
        caught_up(store, program)
        for number in range(rounds):
            progress(f"round {number} of {rounds}")
            for call, error in SPOOL.items():
                fail(shim, call, error, spool, program)
                shim.heal(call)
            wait_for_the_disk(program, spool)
            all_arrive(store, program)
        told = wrong("losses", "--store", store, "--spool", spool)
        program.emit(20)
        program.kill()
    for error in set(SPOOL.values()):
        assert os.strerror(error) in told
    verdict = settled(
        9, "spool: each call fails", store, program, injected=rounds * len(SPOOL), spool=spool
    )
    assert verdict.let_go == 0


IMPATIENT = """
import sys
import sidelight.cli.doctor.backlog
sidelight.cli.doctor.backlog.PATIENCE = 0
sidelight.cli.main(sys.argv[1:])
"""


def doctor(store, spool, shim):
    """Return the output of a doctor that meets the same errors, and has no patience."""
    command = [sys.executable, "-c", IMPATIENT, "doctor", "--store", store, "--spool", str(spool)]
    env = {**os.environ, **shim.environment}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False).stdout


def test_each_call_fails_in_the_store(tmp_path, shim, full, progress, settled):
    """Records wait in the spool while the store fails."""
    disk, spool = tmp_path / "disk", tmp_path / "spool"
    disk.mkdir()
    store = f"sqlite:///{disk / 'events.db'}"
    rounds = 5 if full else 1
    with running(store, spool, order=ORDER, environment=shim.environment) as program:
        program.emit(20)
        caught_up(store, program)
        for number in range(rounds):
            progress(f"round {number} of {rounds}")
            for call, (error, words) in STORE.items():
                fail(shim, call, error, disk, program)
                if full or call == "write":
                    assert re.search(words, doctor(store, spool, shim))
                shim.heal(call)
                all_arrive(store, program)
        assert program.stop() == 0, program.told()
    verdict = settled(
        9, "store: each call fails", store, program, injected=rounds * len(STORE), spool=spool
    )
    assert verdict.let_go == 0
