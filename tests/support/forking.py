"""Programs that fork, and whose children emit: ``python -m tests.support.forking HOW COUNT``.

See `tests.support.emitting`, whose order and reports these share. They write their measurements as
JSON on a line of stderr.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tests.support.emitting import Caller, Order, prepare, run

import sidelight

CHILDREN = 1_000_000_000
"""Numbers of a child's calls begin at so much times its own number, from 1."""
AT_ONCE = 4
HANGS = 30.0  # seconds after which a child is not late but hangs


def emit(child: int, order: Order, calls: int) -> None:
    """Make so many calls as this child."""
    first = order.first + CHILDREN * child
    run(Caller(replace(order, first=first, calls=calls, pause=0.0), 0).run)


def _open_a_store() -> None:
    """The call that hangs in a child that was forked beside a thread inside SQLite."""
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE events (n)")
    connection.close()


def _fork(work: Callable[[], None]) -> tuple[int, float]:
    """Fork a child that works and ends at once; answers its pid and the seconds of the fork."""
    begun = time.perf_counter()
    pid = os.fork()
    if pid:
        return pid, time.perf_counter() - begun
    code = 1
    try:
        work()
        code = 0
    finally:
        os._exit(code)


def many(count: int) -> None:
    """Fork again and again while the relay is busy: threads keep emitting."""
    order = Order.received()
    twins = [_fork(lambda: None) for _ in range(20)]  # before there is anything of sidelight's
    for pid, _ in twins:
        os.waitpid(pid, 0)
    prepare(order)
    callers = [Caller(order, number) for number in range(1, order.threads + 1)]
    threads = [threading.Thread(target=run, args=(caller.run,)) for caller in callers]
    for thread in threads:
        thread.start()
    living: dict[int, float] = {}
    forks, failed = [], 0

    def child(number: int) -> None:
        _open_a_store()
        emit(number, order, 5)

    def reap() -> int:
        bad = 0
        for pid, since in list(living.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                del living[pid]
                bad += status != 0
            elif time.monotonic() - since > HANGS:
                os.kill(pid, signal.SIGKILL)
        return bad

    for number in range(1, count + 1):
        pid, seconds = _fork(lambda number=number: child(number))  # type: ignore[misc]
        living[pid] = time.monotonic()
        forks.append(seconds)
        emit(0, replace(order, first=order.first + 10 * number), 5)
        while len(living) >= AT_ONCE:
            failed += reap()
            time.sleep(0.002)
    while living:
        failed += reap()
        time.sleep(0.002)
    os.kill(os.getpid(), signal.SIGUSR1)  # the threads stop
    for thread in threads:
        thread.join()
    _tell(failed=failed, longest=max(forks), twin=max(seconds for _, seconds in twins))


def outlived(count: int) -> None:
    """The children go on after their parent has ended, and closed its store."""
    order = Order.received()
    prepare(order)
    emit(0, order, 50)
    sidelight.flush()
    for number in range(1, count + 1):
        # Its first event comes while the parent's store is open, the others mostly afterwards.
        _fork(lambda number=number: emit_slowly(number, order))  # type: ignore[misc]
    time.sleep(1.0)


def emit_slowly(child: int, order: Order) -> None:
    """Make calls for two seconds, then deliver what is left."""
    first = order.first + CHILDREN * child
    run(Caller(replace(order, first=first, calls=200, pause=0.01), 0).run)
    sidelight.flush()


def early(count: int) -> None:
    """Fork right after the first emission, in the middle of the relay's imports."""
    order = Order.received()
    run(Caller(replace(order, calls=5), 0).run)
    pids = [_fork(lambda n=n: emit(n, order, 5))[0] for n in range(1, count + 1)]  # type: ignore[misc]
    _tell(failed=sum(os.waitpid(pid, 0)[1] != 0 for pid in pids))


def pool_fork(count: int) -> None:
    """A pool of forked workers, each of which ends after one task."""
    _pool("fork", count)


def pool_spawn(count: int) -> None:
    """A pool of spawned workers, each of which ends after one task."""
    _pool("spawn", count)


def _pool(method: str, count: int) -> None:
    order = Order.received()
    prepare(order)
    emit(0, order, 50)
    # A spawned worker inherits no descriptor, but may open its parent's.
    report = f"/proc/{os.getpid()}/fd/{order.report}"
    context: Any = multiprocessing.get_context(method)
    with context.Pool(2, maxtasksperchild=1) as pool:
        done = pool.map_async(_task, [(n, report) for n in range(1, count + 1)], chunksize=1)
        done.get(120.0)
        pool.close()
        pool.join()
    _tell(failed=0)


def _task(told: tuple[int, str]) -> None:
    number, report = told
    descriptor = os.open(report, os.O_WRONLY)
    emit(number, replace(Order.received(), report=descriptor), 10)
    os.close(descriptor)


def _tell(**figures: float) -> None:
    print(json.dumps(figures), file=sys.stderr, flush=True)


HOW = {each.__name__: each for each in (many, outlived, early, pool_fork, pool_spawn)}

if __name__ == "__main__":
    HOW[sys.argv[1]](int(sys.argv[2]))
