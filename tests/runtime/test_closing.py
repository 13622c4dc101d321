"""The end of a runtime: no relay outlives it. Finalizers say nothing, whatever they find."""

import ast
import importlib
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tests.support.children import sidelight_threads
from tests.support.platforms import needs_spool_files
from tests.support.programs import wait_until
from tests.support.telemetry import restore

import sidelight
import sidelight.relay
from sidelight.runtime import RUNTIME
from sidelight.settings import settle


def test_a_relay_that_is_starting_while_the_runtime_closes_ends(tmp_path, monkeypatch):
    """Its imports take longer than `close` waits."""
    made = sidelight.relay.Relay
    closed = threading.Event()

    def close_first(*args, **kwargs):
        RUNTIME.close(0.01)
        closed.set()
        return made(*args, **kwargs)

    monkeypatch.setattr(sidelight.relay, "Relay", close_first)
    restore()
    RUNTIME.settings = settle(f"sqlite:///{tmp_path / 'events.db'}", environment={})
    try:
        sidelight.emit("made", artifact_id="a")
        assert closed.wait(60)
        wait_until(lambda: not RUNTIME.starting)  # it has started, or has not
        wait_until(lambda: not sidelight_threads())
        assert RUNTIME.relay is None
    finally:
        restore()


ROOT = Path(sidelight.__file__).parent
FINALIZED = {
    (".".join(path.with_suffix("").relative_to(ROOT.parent).parts), made.name)
    for path in ROOT.rglob("*.py")
    if "def __del__" in (source := path.read_text(encoding="utf-8"))
    for made in ast.walk(ast.parse(source))
    if isinstance(made, ast.ClassDef)
    and any(isinstance(each, ast.FunctionDef) and each.name == "__del__" for each in made.body)
}


@pytest.mark.parametrize(("module", "name"), sorted(FINALIZED))
def test_a_finalizer_survives_an_object_whose_constructor_was_interrupted(module, name):
    pytest.importorskip(module)  # an extra
    made = getattr(importlib.import_module(module), name)
    for each in (made, *made.__subclasses__()):
        each.__new__(each).__del__()


LEFT = """
import os, sys
from pathlib import Path
from sidelight.spool import Segment
left = Segment.create(Path(sys.argv[1]), 65536, {"sinks": ["store"]})
os.closerange(3, 100)
own = [open(Path(sys.argv[1], f"own{number}"), "w") for number in range(60)]
for file in own:
    file.write("kept")
"""


@needs_spool_files
def test_a_segment_that_the_end_finds_open_says_nothing_and_closes_no_other_file(tmp_path):
    """Other code has closed its descriptors, and has opened files as these numbers."""
    ran = subprocess.run(
        [sys.executable, "-c", LEFT, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert {path.read_text() for path in tmp_path.glob("own*")} == {"kept"}
