"""Children of `multiprocessing` have the settings of their parent, by every start method."""

import os
import subprocess
import sys
import textwrap

import pytest
from tests.support.commands import sidelight
from tests.support.platforms import needs_spool_files

from sidelight import Store

PROGRAM = """
    import sys
    import sidelight
    IMPORT

    METHOD = sys.argv[1]

    if __name__ == "__mp_main__":
        sidelight.emit("imported", artifact_id="main module")

    def work(depth):
        sidelight.emit("worked", artifact_id=depth)
        if depth:
            start(depth - 1)

    def start(depth):
        import multiprocessing
        child = multiprocessing.get_context(METHOD).Process(target=work, args=[depth])
        child.start()
        child.join()

    if __name__ == "__main__":
        if METHOD == "forkserver" and "multiprocessing" in sys.modules:
            multiprocessing.forkserver.ensure_running()  # older than the configuration
        sidelight.configure("sqlite:///events.db", relay="external")
        start(1)
"""


def told_by(arguments, tmp_path):
    """What a program writes to standard error; its state directory is ``tmp_path / "state"``."""
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        cwd=tmp_path,
        env={
            **{name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ},
            "XDG_STATE_HOME": str(tmp_path / "state"),
        },
    ).stderr


@needs_spool_files
@pytest.mark.parametrize(
    ("method", "imported"),
    [("spawn", "early"), ("spawn", "late"), ("forkserver", "early"), ("fork", "late")],
)
def test_children_and_their_children_go_where_the_parent_goes(tmp_path, method, imported):
    program, store = tmp_path / "program.py", f"sqlite:///{tmp_path}/events.db"
    early = "import multiprocessing.forkserver" if imported == "early" else "pass"
    program.write_text(textwrap.dedent(PROGRAM.replace("IMPORT", early)), "utf-8")
    assert told_by(["program.py", method], tmp_path) == ""
    assert not (tmp_path / "state").exists()
    sidelight("relay", "--once", "--store", store)
    imports = {"spawn": 2, "forkserver": 1, "fork": 0}[method]
    with Store(store) as asked:
        found = sorted((event.type, event.artifact_id) for event in asked.events())
    assert [each for each in found if each[0] == "worked"] == [("worked", "0"), ("worked", "1")]
    assert len(found) >= 2 + imports


def test_a_store_that_nothing_names_is_told(tmp_path):
    assert told_by(["-c", "import sidelight; sidelight.emit('x')"], tmp_path) == (
        f"sidelight: no store is named, so events go to sqlite:///{tmp_path}/state/sidelight/"
        "events.db; call sidelight.configure(…) in each process, or set SIDELIGHT_STORE\n"
    )


def test_a_multiprocessing_that_hands_on_nothing_is_told_once(tmp_path):
    program = f"""
        import multiprocessing.process, sidelight
        del multiprocessing.process.current_process()._config
        for _ in range(2):
            sidelight.configure("sqlite:///{tmp_path}/events.db", otlp=False)
        """
    assert told_by(["-c", textwrap.dedent(program)], tmp_path) == (
        "sidelight: this version of multiprocessing does not hand on the configuration; call"
        " sidelight.configure() in each child process, or set SIDELIGHT_STORE\n"
    )
