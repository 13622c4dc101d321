"""Isolate the tests from the environment of the person who runs them."""

import gc
import itertools
import os
import signal
import sys
import zlib

import hypothesis  # noqa: F401  # before trio, whose hook warns where it loads hypothesis
import pytest

# Before the first import of pydantic: it would load each installed plugin, here those of tracers,
# into each process that the suite starts, which takes a second of processor time.
os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"

from tests.support import warm

from sidelight.emission import EMITTER
from sidelight.record import catalogue
from sidelight.runtime import RUNTIME

_COUNT = itertools.count()
_FREEZE_EVERY = 200  # tests
_BUILD = "SIDELIGHT_BUILD_COLLECTOR"

# The suite starts some thousand processes, and without bytecode each compiles all that it imports.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


def pytest_addoption(parser):
    parser.addoption(
        "--full", action="store_true", help="run the faults and each combination, as `make faults`"
    )


def pytest_collection_modifyitems(config, items):
    """Leave out all but one in n of the cases that are marked so, other ones with each seed.

    `--full` runs all of them, and so does a command that names a case or wants the last failures.
    """
    named = any("::" in each for each in config.args)
    if named or config.getoption("--full") or config.getoption("lf", False):
        return
    seed = config.getoption("randomly_seed", 0)
    left_out = {
        item
        for item in items
        if (mark := item.get_closest_marker("one_in"))
        and zlib.crc32(f"{seed} {item.nodeid}".encode()) % mark.args[0]
    }
    config.hook.pytest_deselected(items=[*left_out])
    items[:] = [item for item in items if item not in left_out]


def pytest_collection_finish():
    """Keep what was collected out of each garbage collection, because tests make hundreds."""
    gc.collect()
    gc.freeze()


def pytest_configure(config):
    """With `--full`, let programs begin in interpreters of their own."""
    warm.cold = config.getoption("--full")


@pytest.fixture
def full(pytestconfig):
    """Return whether the tests run at full length."""
    return bool(pytestconfig.getoption("--full"))


@pytest.fixture(autouse=True, scope="session")
def _clean_environment(tmp_path_factory):
    """Clean the environment for good, because the process may emit at its very end.

    A shell lets what it starts in the background ignore Ctrl-C, and each child inherits that.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in list(os.environ):
        ours = name.startswith("SIDELIGHT_") and not name.startswith(("SIDELIGHT_TEST", _BUILD))
        if ours or name.startswith("OTEL_"):
            del os.environ[name]
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


def pytest_sessionfinish():
    """End the servers that the tests of this worker started, because xdist runs no atexit."""
    for kind in ("postgres", "kafka", "warm"):
        if servers := sys.modules.get(f"tests.support.{kind}"):
            servers.end()


@pytest.fixture(autouse=True)
def _state_of_one_test(tmp_path_factory, monkeypatch):
    """Give each test a state directory, because the doctor tells of all spools there."""
    base, number = tmp_path_factory.getbasetemp() / "states", next(_COUNT)
    monkeypatch.setenv("XDG_STATE_HOME", str(base / f"{number}"))
    if number % _FREEZE_EVERY == _FREEZE_EVERY - 1:
        pytest_collection_finish()  # what the tests have imported since


@pytest.fixture(autouse=True)
def _no_relay_outlives_its_test():
    """Close what a test left open, because its relay would run on in this process."""
    yield
    if RUNTIME.spool is not None:
        RUNTIME.close(5.0)
        RUNTIME.settings = None


@pytest.fixture(autouse=True)
def _losses_of_one_test():
    """Forget the losses of a test before the next one."""
    yield
    EMITTER.losses.clear()
    EMITTER.problems.clear()


@pytest.fixture
def empty_catalogue(monkeypatch):
    """A catalogue that knows nothing, because other tests of this process import declarations."""
    for declarations in ("_declared", "_expected"):
        monkeypatch.setattr(catalogue, declarations, {})
