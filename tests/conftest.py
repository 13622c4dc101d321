"""No test sees, or leaves anything in, the environment of whoever runs the suite."""

import os

import pytest


@pytest.fixture(autouse=True, scope="session")
def _clean_environment(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    for name in list(os.environ):
        if name.startswith(("OTEL_", "SIDELIGHT_")) and not name.startswith("SIDELIGHT_TEST"):
            if name != "SIDELIGHT_BUILD_COLLECTOR":
                patch.delenv(name)
    patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
    yield
    patch.undo()
