"""Row 7: the disk is full, or files may not grow (RLIMIT_FSIZE): never SIGBUS, never SIGXFSZ."""

import contextlib
import resource
from dataclasses import replace

import pytest
from tests.support.commands import end, spawn, wrong
from tests.support.disks import small_disk
from tests.support.emitting import Order
from tests.support.preludes import SMALL, padded
from tests.support.programs import (
    all_arrive,
    caught_up,
    running,
    wait_for_the_disk,
    wait_until,
)

ORDER = Order(pause=0.01, prelude=padded(40), configure={"spool_limit": SMALL})
"""About 25 calls fill a segment, so that the supply of segments is soon used up."""
LEFT = (0, 50_000, 600_000, 1_300_000)
"""Free bytes: for nothing, for a cursor, for half a segment, for one segment."""


def doctor_says_that_it_is_full(disk, store, spool):
    """Fill the disk again, because deliveries make room, and ask the doctor."""
    disk.fill()
    return "is full" in wrong("spool", "--store", store, "--spool", spool)


@contextlib.contextmanager
def relaying(store, spool):
    """Run `sidelight relay` in a process of its own."""
    process = spawn("relay", "--store", store, "--spool", spool)
    try:
        yield
    finally:
        process.terminate()
        assert end(process).code == 0


@pytest.mark.parametrize("relay", ["thread", "external"])
def test_the_spools_disk_is_full(relay, store, tmp_path, full, progress, settled):
    """The store works. One program ends while the disk is full, another is killed later."""
    lefts = LEFT * 3 if full else LEFT[:1]
    order = replace(ORDER, configure={"relay": relay, "spool_limit": SMALL})
    with small_disk(tmp_path / "disk", 96) as disk:
        spool = disk.path / "spool"
        with (
            relaying(store, spool) if relay == "external" else contextlib.nullcontext(),
            running(store, spool, order=order) as living,
        ):
            living.emit(20)
            caught_up(store, living)
            ended = []
            for number, left in enumerate(lefts):
                progress(f"{number} of {len(lefts)}")
                disk.fill(leave=left)
                order = replace(ORDER, first=(number + 1) * 1_000_000)
                with running(store, spool, order=order) as ending:
                    living.emit(80)
                    ending.emit(80)
                    if relay == "thread" and number % len(LEFT) == 0:
                        wait_until(lambda: doctor_says_that_it_is_full(disk, store, spool))
                    assert ending.stop() == 0, ending.told()
                ended.append(ending)
                disk.make_room()
                wait_for_the_disk(living, spool)
                all_arrive(store, living, *ended)
            living.emit(30)
            living.kill()
        verdict = settled(
            7,
            f"spool's disk full, relay: {relay}",
            store,
            living,
            *ended,
            injected=len(lefts),
            spool=spool,
        )
        assert verdict.let_go == 0
        reason = "kept in memory: No space left on device"
        # A last ledger that is in memory itself may die with its process, which ends in a second.
        assert verdict.counted.get(reason) or any(reason in each.told() for each in ended)


def test_the_disk_of_store_and_spool_is_full(tmp_path, full, progress, settled):
    """The store takes nothing. Records wait in memory, until that is full as well."""
    with small_disk(tmp_path / "disk", 600) as disk:
        store, spool = f"sqlite:///{disk.path / 'events.db'}", disk.path / "events.db-spool"
        rounds = 3 if full else 1
        with running(store, order=ORDER) as program:
            program.emit(20)
            caught_up(store, program)
            for number in range(rounds):
                disk.fill()
                program.emit(100)
                assert "the store takes no more" in wrong("disk", "--store", store)
                before = len(program.reports.lost)
                while full and len(program.reports.lost) < before + 500:
                    progress(f"round {number}, {program.calls} calls")
                    program.emit(100)
                disk.make_room()
                wait_for_the_disk(program, spool)
                all_arrive(store, program)
            assert program.stop() == 0, program.told()
        verdict = settled(7, "disk of store and spool full", store, program, injected=rounds)
        assert verdict.stored + verdict.let_go == verdict.calls
        assert verdict.counted["kept in memory: No space left on device"]


def limit_files(program, size):
    """Let no file of a program grow beyond this."""
    limits = (size, resource.RLIM_INFINITY)
    resource.prlimit(program.process.pid, resource.RLIMIT_FSIZE, limits)


def test_files_may_not_grow(tmp_path, full, progress, settled):
    """RLIMIT_FSIZE: segments and the store can grow little, or not at all."""
    store, spool = f"sqlite:///{tmp_path / 'events.db'}", tmp_path / "events.db-spool"
    sizes = (0, 500_000) * (5 if full else 1)
    with running(store, order=ORDER) as program:
        program.emit(20)
        caught_up(store, program)
        for number, size in enumerate(sizes):
            progress(f"{number} of {len(sizes)}")
            limit_files(program, size)
            program.emit(120)
            assert "RLIMIT_FSIZE" in wrong("limits", "--store", store)
            limit_files(program, resource.RLIM_INFINITY)
            wait_for_the_disk(program, spool)
            all_arrive(store, program)
        assert program.stop() == 0, program.told()
    verdict = settled(7, "files may not grow", store, program, injected=len(sizes))
    assert verdict.let_go == 0
    assert verdict.counted["kept in memory: File too large"]
