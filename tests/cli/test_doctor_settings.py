"""What a process refuses of its environment, the doctor in the same environment tells."""

import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.commands import of, sidelight
from tests.support.platforms import needs_tmpfs
from tests.support.stored import record, sqlite, store

from sidelight.settings import settle
from sidelight.spool import hot_directory

EMIT = "import sidelight; sidelight.configure(); sidelight.emit('made')"
KAFKA = {"SIDELIGHT_STREAM": "kafka://127.0.0.1:1/events"}
BAD = [
    ({"SIDELIGHT_STORE": "mysql://host/events"}, "mysql is not supported"),
    ({"SIDELIGHT_STORE": "events.db"}, "is not a URL"),
    ({"SIDELIGHT_STREAM": "kafka://host"}, "names no brokers and topic"),
    ({"SIDELIGHT_OUTBOXES": "mysql://host/shop"}, "mysql is not supported"),
    ({"SIDELIGHT_STRICT": "perhaps"}, "is neither yes nor no"),
    ({"SIDELIGHT_HOT": "/nonexist"}, "/nonexist is no directory"),
    ({"SIDELIGHT_HOT": "{tmp}"}, "lies on"),
    ({"SIDELIGHT_HOT": "/proc"}, "lies on"),
    ({**KAFKA, "SIDELIGHT_KAFKA_NO_SUCH": "1"}, "no.such"),
    ({**KAFKA, "SIDELIGHT_KAFKA_PROPERTIES": "/nonexist"}, "/nonexist"),
    ({"SIDELIGHT_MAP": "/nonexist.toml"}, "/nonexist.toml"),
    ({"SIDELIGHT_MAP": "{map}", "SIDELIGHT_MAP_LENIENT": "perhaps"}, "is neither yes nor no"),
]


@pytest.mark.parametrize(("variables", "told"), BAD, ids=str)
def test_the_doctor_tells_what_a_process_refuses(variables, told, tmp_path, monkeypatch):
    store(sqlite(tmp_path), [record()])
    monkeypatch.setenv("SIDELIGHT_STORE", sqlite(tmp_path))
    assert sidelight("doctor").code == sidelight("doctor", "--ready").code == 0
    (tmp_path / "map.toml").write_text('[[point]]\nfunction = "json:dumps"\nsuccess = "dumped"\n')
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(tmp=tmp_path, map=tmp_path / "map.toml"))
    if not any(name.startswith("SIDELIGHT_MAP") for name in variables):
        refused = subprocess.run([sys.executable, "-c", EMIT], capture_output=True, text=True)
        assert refused.returncode == 1
        assert told in refused.stderr
    said = sidelight("doctor", columns=1000)
    assert said.code == 1
    assert told in said.out + said.err


def test_a_probe_fails_where_every_event_is_lost(tmp_path, monkeypatch):
    monkeypatch.setenv("SIDELIGHT_HOT", "/nonexist")
    said = sidelight("doctor", "--ready", *of(tmp_path / "events.db"))
    assert said.code == 1
    assert "every event is lost" in said.out


@needs_tmpfs
def test_the_doctor_makes_no_directory_for_hot_segments(tmp_path, monkeypatch):
    hot = "/dev/shm"
    monkeypatch.setenv("SIDELIGHT_HOT", hot)
    settings = settle(f"sqlite:///{tmp_path / 'events.db'}")
    path = hot_directory(settings.hot, settings.spool, make=False)
    assert path.parent == Path(hot)
    assert sidelight("doctor", "--ready", *of(tmp_path / "events.db")).code == 0
    assert not path.exists()
