"""A process that is configured again: what its stores know of it, and which configuration holds."""

import threading

import pytest
from msgspec.structs import replace
from tests.support.telemetry import restore

import sidelight
from sidelight import Store, emits
from sidelight.emission import EMITTER
from sidelight.runtime import RUNTIME


@pytest.fixture(autouse=True)
def _restored():
    yield
    restore()


@pytest.fixture
def urls(tmp_path):
    return [f"sqlite:///{tmp_path / name}.db" for name in ("one", "two")]


def processes(url):
    with Store(url) as store:
        return [each.ended for each in store.processes()]


def outcomes(url):
    with Store(url) as store:
        return sorted((event.type, event.outcome) for event in store.events())


def test_the_same_store_knows_that_the_process_lives_on(urls):
    """Its calls that are running are not abandoned."""
    begun, go_on = threading.Event(), threading.Event()

    @emits("job_done", start="job_started", artifact_id="a")
    def job():
        begun.set()
        go_on.wait(60)

    sidelight.configure(urls[0], otlp=False)
    thread = threading.Thread(target=job)
    thread.start()
    assert begun.wait(60)
    assert sidelight.flush(60)
    sidelight.configure(urls[0], otlp=False, spool_limit=1 << 29)
    assert sidelight.flush(60)
    assert outcomes(urls[0]) == [("job_started", "started")]
    go_on.set()
    thread.join()
    assert sidelight.flush(60)
    assert outcomes(urls[0]) == [("job_done", "succeeded"), ("job_started", "started")]
    assert processes(urls[0]) == [""]


def test_another_store_gets_the_process_and_its_losses(urls):
    sidelight.configure(urls[0], otlp=False)
    sidelight.emit("made", artifact_id="a")
    EMITTER.count("field x not captured", "a problem")
    assert sidelight.flush(60)
    sidelight.configure(urls[1], otlp=False)
    sidelight.emit("made", artifact_id="b")
    assert sidelight.flush(60)
    for url in urls:
        with Store(url) as store:
            assert [(each.reason, each.count) for each in store.losses()] == [
                ("field x not captured", 1)
            ]
    assert processes(urls[0]) == ["exited"]
    assert processes(urls[1]) == [""]
    sidelight.configure(urls[0], otlp=False)
    sidelight.emit("made", artifact_id="c")
    assert sidelight.flush(60)
    assert processes(urls[0]) == [""]


def test_a_thread_that_comes_late_replaces_no_newer_configuration(urls):
    sidelight.configure(urls[0], otlp=False)
    before = RUNTIME.settings
    sidelight.configure(urls[1], otlp=False)
    RUNTIME.configure(replace(before, relay="external"), instead_of=before)
    sidelight.emit("made", artifact_id="a")
    assert sidelight.flush(60)
    assert outcomes(urls[1]) == [("made", "emitted")]
