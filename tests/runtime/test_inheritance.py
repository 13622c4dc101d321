"""Children of `multiprocessing` have the settings of their parent, by every start method."""

import os
import subprocess
import sys
import textwrap

import pytest
from tests.support.commands import sidelight
from tests.support.platforms import needs_spool_files

from sidelight import Store
from sidelight.runtime.writer import meta_of_child, writer_meta
from sidelight.settings import settle
from sidelight.spool import Scanner, Segment
from sidelight.spool.header import PAGE

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


ONCE = """
    import multiprocessing, os, sys
    import sidelight

    if __name__ == "__mp_main__":
        for number in range(100):
            sidelight.emit("imported", artifact_id=number, process=os.getpid())

    def work(number):
        sidelight.emit("worked", artifact_id=number)

    if __name__ == "__main__":
        sidelight.configure("sqlite:///events.db", relay="external")
        multiprocessing.get_context("forkserver")
        children = [
            multiprocessing.get_context("forkserver").Process(target=work, args=[number])
            for number in range(8)
        ]
        for child in children:
            child.start()
        for child in children:
            child.join()
"""


@needs_spool_files
def test_the_import_of_the_main_module_leaves_its_events_once(tmp_path):
    """From Python 3.14 on the server imports it once, and each child has its frames."""
    (tmp_path / "program.py").write_text(textwrap.dedent(ONCE), "utf-8")
    assert told_by(["program.py"], tmp_path) == ""
    assert not (tmp_path / "state").exists()
    paths = (tmp_path / "events.db-spool").glob("*.seg")
    batches = [Scanner(Segment.inspect(path), PAGE).batch(1000) for path in paths]
    written = [payload for batch in batches for payload in batch.payloads]
    assert len(written) == len(set(written)), "the same record was written by two processes"
    sidelight("relay", "--once", "--store", f"sqlite:///{tmp_path}/events.db")
    with Store(f"sqlite:///{tmp_path}/events.db") as asked:
        found = list(asked.events())
    assert sum(event.type == "worked" for event in found) == 8
    processes = {event.attributes["process"] for event in found if event.type == "imported"}
    assert len(processes) == (1 if sys.version_info >= (3, 14) else 8)
    assert sum(event.type == "imported" for event in found) == 100 * len(processes)


ALONE = """
    import multiprocessing.forkserver
    import sidelight

    if __name__ == "__mp_main__":
        sidelight.emit("imported", artifact_id="main module")

    if __name__ == "__main__":
        multiprocessing.set_forkserver_preload(["__main__"])
        multiprocessing.forkserver.ensure_running()
"""


@pytest.mark.skipif(sys.version_info < (3, 14), reason="the server imports no main module")
def test_a_server_without_children_tells_where_its_events_go(tmp_path):
    (tmp_path / "program.py").write_text(textwrap.dedent(ALONE), "utf-8")
    assert "no store is named" in told_by(["program.py"], tmp_path)
    sidelight("relay", "--once", "--store", f"sqlite:///{tmp_path}/state/sidelight/events.db")
    with Store(f"sqlite:///{tmp_path}/state/sidelight/events.db") as asked:
        assert [event.type for event in asked.events()] == ["imported"]


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


@pytest.mark.parametrize("attributes", ["", "service.instance.id=mine,process.pid=7", "team=audio"])
def test_the_header_of_a_forked_child_differs_in_its_ids_only(attributes, tmp_path, monkeypatch):
    environment = {"OTEL_RESOURCE_ATTRIBUTES": attributes}
    settings = settle(f"sqlite:///{tmp_path}/events.db", environment=environment)
    own = writer_meta(settings, "child")
    monkeypatch.setattr(os, "getpid", lambda: 1)
    parents = writer_meta(settings, "parent")
    monkeypatch.undo()
    assert meta_of_child(parents, "child") == own != parents
