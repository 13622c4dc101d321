"""Applications of every kind that are killed in the middle of their work, one after the other.

``python -m tests.support.ordering STORE ROUNDS EACH SEED APPLICATION=URL…`` runs each so many
rounds, each in a process of its own, which dies by SIGKILL: before a commit, after one, after a
rollback, or whenever it happens. For each that has died it writes a line.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import sys
import time

from tests.support.business import APPLICATIONS, Application, Unit

import sidelight

MOMENTS = ("before the commit", "after the commit", "after the rollback", "whenever")
_LONGEST = 0.03  # seconds until a round is killed "whenever"


def moments(case: int, each: int) -> list[str]:
    """So many moments for the case of this number: they take turns."""
    return [MOMENTS[(case + n) % len(MOMENTS)] for n in range(each)]


def main(store: str, rounds: int, each: int, seed: int, cases: list[tuple[str, str]]) -> None:
    """Run the cases."""
    chance = random.Random(seed)
    for case, (name, url) in enumerate(cases):
        for number, moment in itertools.product(range(rounds), moments(case, each)):
            ready, says_so = os.pipe()
            process = os.fork()
            if process == 0:
                try:
                    _live(store, name, url, moment, f"{url}|{name}|{number}|{moment}", says_so)
                finally:
                    os._exit(1)
            os.close(says_so)
            if moment == "whenever":
                os.read(ready, 1)
                time.sleep(chance.uniform(0, _LONGEST))
                os.kill(process, signal.SIGKILL)
            os.close(ready)
            _, status = os.waitpid(process, 0)
            if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
                raise RuntimeError(f"{name}, {moment}: ended with {status}")
            print(name, moment, flush=True)


def _live(store: str, name: str, url: str, moment: str, prefix: str, ready: int) -> None:
    sidelight.configure(store, relay="external", otlp=False)
    application = APPLICATIONS[name](url, "transaction", strict=True)
    numbers = (f"{prefix}|{number}" for number in itertools.count())
    with application.unit() as unit:
        _order(application, unit, next(numbers))
        unit.commit()
        os.write(ready, b".")
        if moment == "whenever":
            for kept in itertools.cycle([True, True, False]):
                _order(application, unit, next(numbers))
                _order(application, unit, next(numbers))
                (unit.commit if kept else unit.rollback)()
        _order(application, unit, next(numbers))
        if moment == "after the commit":
            unit.commit()
        elif moment == "after the rollback":
            unit.rollback()
        os.kill(os.getpid(), signal.SIGKILL)


def _order(application: Application, unit: Unit, name: str) -> None:
    application.order(unit.target, name)
    with unit.savepoint():
        application.order(unit.target, f"{name}|in a savepoint")


if __name__ == "__main__":
    given = [(name, url) for name, _, url in (case.partition("=") for case in sys.argv[5:])]
    main(sys.argv[1], *map(int, sys.argv[2:5]), given)
