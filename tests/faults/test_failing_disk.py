"""Row 9: no file can be opened, disks are read-only and fail, the spool's directory is removed."""

import contextlib
import errno
import resource
import shutil
from dataclasses import replace

import pytest
from tests.support.commands import wrong
from tests.support.disks import small_disk
from tests.support.emitting import Order
from tests.support.preludes import padded
from tests.support.programs import (
    all_arrive,
    caught_up,
    deliver,
    judge,
    nothing_left,
    running,
    wait_for_the_disk,
)
from tests.support.shim import CALLS, Shim

ORDER = Order(pause=0.004, prelude=padded(40))
"""Some 25 calls fill a segment."""


@contextlib.contextmanager
def no_more_files(_, *programs):
    """EMFILE: what is open stays so."""
    before = [
        resource.prlimit(each.process.pid, resource.RLIMIT_NOFILE, (3, resource.RLIM_INFINITY))
        for each in programs
    ]
    yield
    for each, limits in zip(programs, before, strict=True):
        resource.prlimit(each.process.pid, resource.RLIMIT_NOFILE, limits)


@contextlib.contextmanager
def read_only(disk, *_):
    """EROFS: nothing can be made, or opened to write."""
    with disk.read_only():
        yield


@contextlib.contextmanager
def removed(disk, *_):
    """ENOENT for whoever makes a segment; what has no name any more dies with its writer."""
    shutil.rmtree(disk.path / "spool")
    yield


FAULTS = {
    "no file can be opened": (no_more_files, "limits", "RLIMIT_NOFILE"),
    "read-only": (read_only, "spool", "read-only filesystem"),
    "directory removed": (removed, "losses", "segment deleted under its writer"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_spool_can_not_be_written(fault, tmp_path, full, progress, row):
    """One program relays for itself and for another, which has no thread of ours."""
    inject, check, words = FAULTS[fault]
    store = f"sqlite:///{tmp_path / 'events.db'}"
    rounds = 20 if full else 1
    external = replace(ORDER, first=10**8, configure={"relay": "external"})
    with small_disk(tmp_path / "disk", 96) as disk:
        spool = disk.path / "spool"
        with (
            running(store, spool, order=ORDER) as relaying,
            running(store, spool, order=external) as relayed,
        ):
            relayed.emit(20)
            caught_up(store, relaying, relayed)
            for number in range(rounds):
                progress(f"round {number} of {rounds}")
                with inject(disk, relaying, relayed):
                    relayed.emit(100)
                    assert words in wrong(check, "--store", store, "--spool", spool)
                wait_for_the_disk(relaying, spool)
                wait_for_the_disk(relayed, spool)
                all_arrive(store, relaying, relayed)
            relaying.emit(20)
            relaying.kill()
            relayed.emit(20)
            assert relayed.stop() == 0, relayed.told()
        deliver(store, spool)
        verdict = judge(store, relaying, relayed)
        row(9, f"spool: {fault}", injected=rounds, verdict=verdict)
        assert verdict.let_go == 0
        nothing_left(store, spool)


SPOOL = {
    "open": errno.EIO,
    "write": errno.EIO,
    "sync": errno.EIO,
    "allocate": errno.ENOSPC,
    "map": errno.ENOMEM,
    "rename": errno.EIO,
    "unlink": errno.EIO,
    "read": errno.EIO,
}


def test_each_call_fails_in_the_spool(tmp_path, full, progress, row):
    """For less than the five seconds that a disk has to become readable again."""
    shim = Shim(tmp_path)
    store, spool = f"sqlite:///{tmp_path / 'events.db'}", tmp_path / "spool"
    rounds = 10 if full else 1
    with running(store, spool, order=ORDER, environment=shim.environment) as program:
        program.emit(20)
        caught_up(store, program)
        for number in range(rounds):
            for call, error in SPOOL.items():
                progress(f"round {number} of {rounds}: {call}")
                shim.fail(call, error, spool)
                program.emit(60)
                shim.heal(call)
                wait_for_the_disk(program, spool)
                all_arrive(store, program)
                assert shim.met(call), call
        program.emit(20)
        program.kill()
    deliver(store, spool)
    verdict = judge(store, program)
    row(9, "spool: each call fails", injected=rounds * len(SPOOL), verdict=verdict)
    print(verdict.counted)
    assert verdict.let_go == 0
    nothing_left(store, spool)


STORE = {"open": errno.EMFILE, "write": errno.EIO, "sync": errno.EIO, "read": errno.EIO}


def test_each_call_fails_in_the_store(tmp_path, full, progress, row):
    shim = Shim(tmp_path)
    (tmp_path / "store").mkdir()
    store, spool = f"sqlite:///{tmp_path / 'store' / 'events.db'}", tmp_path / "spool"
    rounds = 10 if full else 1
    with running(store, spool, order=ORDER, environment=shim.environment) as program:
        program.emit(20)
        caught_up(store, program)
        for number in range(rounds):
            for call, error in STORE.items():
                progress(f"round {number} of {rounds}: {call}")
                shim.fail(call, error, tmp_path / "store")
                program.emit(60)
                print(call, wrong("store", "--store", store, "--spool", spool), wrong("backlog", "--store", store, "--spool", spool),wrong("losses", "--store", store, "--spool", spool))
                shim.heal(call)
                all_arrive(store, program)
                print(call, shim.met(call))
        program.emit(20)
        assert program.stop() == 0, program.told()
    deliver(store, spool)
    verdict = judge(store, program)
    row(9, "store: each call fails", injected=rounds * len(STORE), verdict=verdict)
    assert verdict.let_go == 0
    nothing_left(store, spool)
