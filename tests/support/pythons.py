"""Run a short form of the suite on every Python of this machine: ``make test-pythons``.

The suites of the decorator, the spool, the relay, children and transactions depend on the version
of the interpreter more than others do. Each Python gets an environment once; see `interpreters`.
"""

from __future__ import annotations

import os
import sys
from typing import Final

from tests.support.interpreters import HERE, ROOT, VERSIONS, how_to_get, interpreter
from tests.support.suites import passes

_SUITES: Final = (
    *("points/test_callables.py", "points/test_generators.py", "points/test_transparency.py"),
    *("points/test_by_reference.py", "points/test_binding.py", "points/test_tracebacks.py"),
    *("emission/test_loops.py", "points/test_tasks_and_annotations.py"),
    *("spool/test_spool.py", "spool/test_segment.py", "relay/test_relay.py"),
    *("runtime/test_inheritance.py", "runtime/test_closing.py", "transactions/test_emit.py"),
    "faults/test_forks.py",
    # The ways to end of every version are a part of the whole suite.
    *(
        f"faults/test_ends.py::{test}"
        for test in (
            "test_the_next_process_delivers",
            "test_where_nobody_answers_the_end_is_not_delayed",
        )
    ),
)
_PLUGIN: Final = ("-p", "sidelight.testing.pytest_plugin")  # sidelight itself is not installed
_NEEDED: Final = (
    *("aiosqlite", "anyio", "asyncpg", "cloudpickle", "django", "filelock", "gevent", "hypothesis"),
    *("psutil", "psycopg[binary]", "pytest", "pytest-asyncio", "pytest-xdist", "trio", "uvloop"),
    "sqlalchemy[asyncio]",
)


def _run(version: str) -> bool:
    """Run the suites on one version; True where they pass, or where it is not on this machine."""
    if version == HERE:
        print(f"Python {version}: `make test` runs the whole suite on it")
        return True
    python = interpreter(version, _NEEDED)
    if python is None:
        print(how_to_get(version))
        return True
    print(f"Python {version}: {python}", flush=True)
    path = {"PYTHONPATH": os.fspath(ROOT / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    suites = (f"tests/{suite}" for suite in _SUITES)
    return passes(python, suites, *_PLUGIN, jobs=2, environment={**os.environ, **path})


if __name__ == "__main__":
    passed = [_run(version) for version in VERSIONS]
    sys.exit(not all(passed))
