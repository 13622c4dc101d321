"""No test sees, or leaves anything in, the environment of whoever runs the suite."""

import os
import sys

import pytest

from sidelight.emission.emitter import EMITTER

_BUILD = "SIDELIGHT_BUILD_COLLECTOR"


def pytest_addoption(parser):
    parser.addoption(
        "--full", action="store_true", help="the faults at full length, as `make faults` has them"
    )


@pytest.fixture(autouse=True, scope="session")
def _clean_environment(tmp_path_factory):
    """For good: what the process has left to emit at its very end has its place there, too."""
    for name in list(os.environ):
        ours = name.startswith("SIDELIGHT_") and not name.startswith(("SIDELIGHT_TEST", _BUILD))
        if ours or name.startswith("OTEL_"):
            del os.environ[name]
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


def pytest_sessionfinish():
    """What a worker has started for its tests ends with it: xdist lets no atexit run."""
    if servers := sys.modules.get("tests.support.postgres"):
        servers.end()


@pytest.fixture(autouse=True)
def _losses_of_one_test():
    """What one test made the process lose is not told in another."""
    yield
    EMITTER.losses.clear()
    EMITTER.problems.clear()
