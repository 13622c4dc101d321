"""Row 9: the spool is moved or replaced while a program emits and the store is locked."""

import contextlib
import sqlite3

import pytest
from tests.support.emitting import Order
from tests.support.programs import caught_up, running, wait_until

from sidelight.record import decode
from sidelight.spool import PAGE, Scanner, Segment, segments_in

REASON = "segment deleted under its writer"


def moved(spool):
    spool.rename(spool.with_name("moved"))


def replaced(spool):
    moved(spool)
    spool.mkdir(mode=0o700)


def link_turned(spool):
    """The path of the spool is a link, and leads to another directory now."""
    other = spool.with_name("other")
    other.mkdir(mode=0o700)
    spool.unlink()
    spool.symlink_to(other)


def segments_moved(spool):
    """The directory stays; an administrator moves the files out of it."""
    away = spool.with_name("away")
    away.mkdir()
    for path in segments_in(spool):
        path.rename(away / path.name)


def records_in(spool):
    found = []
    for path in segments_in(spool):
        with (
            contextlib.suppress(FileNotFoundError),
            contextlib.closing(Segment.inspect(path)) as segment,
        ):
            scanner = Scanner(segment, PAGE)
            while payloads := scanner.batch(1000).payloads:
                found += map(decode, payloads)
    return found


def tells_of_it(spool):
    """Whether the loss is in the spool; it gets there within half a second."""
    ledgers = [moment for static, moment in records_in(spool) if static.outcome == "ledger"]
    return any(REASON in moment.attributes.get("losses", ()) for moment in ledgers)


@pytest.mark.parametrize(
    "replace", [moved, replaced, link_turned, segments_moved], ids=lambda how: how.__name__
)
def test_a_killed_program_leaves_its_records_at_the_path_of_the_spool(
    store, tmp_path, replace, settled
):
    spool = tmp_path / "spool"
    if replace is link_turned:
        (tmp_path / "directory").mkdir(mode=0o700)
        spool.symlink_to(tmp_path / "directory")
    with running(store, spool, order=Order(pause=0.001, kinds=("emit",), configure={})) as program:
        program.emit(20)
        caught_up(store, program)
        locked = sqlite3.connect(store.removeprefix("sqlite:///"), isolation_level=None)
        with contextlib.closing(locked):
            locked.execute("BEGIN IMMEDIATE")
            program.emit(200)
            replace(spool)
            program.emit(200)
            written = program.calls
            wait_until(lambda: len(records_in(spool)) >= written and tells_of_it(spool))
            program.emit(50)
            program.kill()
    verdict = settled(9, f"spool {replace.__name__}", store, program, injected=1, spool=spool)
    assert verdict.let_go == 0
    assert verdict.counted[REASON]
