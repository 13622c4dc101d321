"""The command line of the pipeline: `python -m voice_notes`."""

import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from tests.support.telemetry import restore
from tests.voice_notes.wavs import SHIPPED, shipped_sound, wav
from typer.testing import CliRunner

from voice_notes.cli import app


@pytest.fixture(autouse=True)
def _in_a_place_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    restore()


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "voice_notes", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "COLUMNS": "100", "NO_COLOR": "1"},
        check=False,
    )


def fail(*arguments: str) -> str:
    """Run within this process, because that is quicker, and return the error message."""
    outcome = CliRunner().invoke(app, arguments, env={"COLUMNS": "100"})
    assert outcome.exit_code == 1
    assert isinstance(outcome.exception, SystemExit)
    return outcome.stderr.strip()


def events(store: Path) -> list[sqlite3.Row]:
    with closing(sqlite3.connect(store)) as connection:
        connection.row_factory = sqlite3.Row
        return connection.execute("SELECT * FROM events ORDER BY occurred_at, event_id").fetchall()


def test_the_shipped_recording(tmp_path):
    done = run("--store", f"sqlite:///{tmp_path}/events.db")
    assert (done.returncode, done.stderr) == (0, "")
    for expected in (
        "northwind.wav, 17.9 s",
        "Maria Santos has moved to the Dublin office",
        "needs disambiguation",
        "confirmed",
        "rejected: ambiguous person",
        "sidelight timeline",
    ):
        assert expected in done.stdout

    found = events(tmp_path / "events.db")
    assert [row["type"] for row in found] == [
        "artifact_received",
        "artifact_status_changed",
        "transcription_started",
        "transcription_completed",
        "claims_extraction_started",
        "claims_extracted",
        "entity_resolution_started",
        "entity_resolution_needs_disambiguation",
        "draft_generation_started",
        "drafts_generated",
        "draft_confirmed",
        "draft_confirmed",
        "draft_rejected",
        "draft_confirmed",
        "artifact_completed",
    ]
    assert {row["organization_id"] for row in found} == {"northwind"}
    (artifact,) = {row["artifact_id"] for row in found}
    said = re.search(r"See what happened: (.*)", done.stdout)
    assert said
    assert said[1].endswith(f"sidelight timeline {artifact} --store sqlite:///{tmp_path}/events.db")
    # Typed as it is, where the environment's programs are not on the PATH.
    system = {**os.environ, "PATH": os.defpath}
    shell = subprocess.run(said[1], shell=True, env=system, capture_output=True, text=True)
    assert shell.returncode == 0, shell.stderr
    assert artifact in shell.stdout
    # No spoken text and no name of a person leaves the business database.
    told = " ".join(str(row["attributes"]) for row in found)
    assert not any(word in told for word in ("Daniel", "Emma", "Maria", "budget", "@"))


def test_another_recording_with_everything_named(tmp_path):
    (tmp_path / "note.wav").write_bytes(wav(shipped_sound(5.2), rate=44_100, channels=2))
    (tmp_path / "people.json").write_text(
        '{"organizations": [{"id": "x", "people": [{"name": "Daniel Weber"}]}]}'
    )
    done = run(
        *("note.wav", "--organization", "mine", "--directory", "people.json"),
        *("--database", "business.db", "--store", f"sqlite:///{tmp_path}/events.db"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert ", mine" in done.stdout
    assert "crm note · Daniel Weber" in done.stdout
    assert (tmp_path / "business.db").exists()
    assert not (tmp_path / "voice_notes.db").exists()


def test_broken_file(tmp_path):
    (tmp_path / "note.wav").write_bytes(SHIPPED.read_bytes()[:20_000])
    done = run("note.wav", "--no-organization", "--store", f"sqlite:///{tmp_path}/events.db")
    assert done.returncode == 1
    assert done.stderr.startswith("note.wav is cut short: its header promises 17.9 s of sound")
    assert "Traceback" not in done.stderr + done.stdout
    found = events(tmp_path / "events.db")
    assert [row["type"] for row in found] == [
        "artifact_received",
        "artifact_status_changed",
        "transcription_started",
        "transcription_failed",
        "artifact_failed",
    ]
    assert {row["organization_id"] for row in found} == {None}
    assert len({row["artifact_id"] for row in found}) == 1
    assert "BrokenRecordingError" in found[3]["attributes"]


BROKEN = {
    "empty": (b"", "note.wav is empty"),
    "mp3": (b"ID3\x04" + bytes(100), "note.wav is not a WAV file, but an MP3 file"),
    "header": (b"RIFF\0\0", "note.wav is broken: it ends within its header"),
    "silence": (wav(np.zeros(9_000, np.float32)), "nobody is heard speaking in note.wav"),
}


@pytest.mark.parametrize(("content", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_what_cannot_be_transcribed(tmp_path, content, message):
    (tmp_path / "note.wav").write_bytes(content)
    assert fail("note.wav") == message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.wav"], "none.wav does not exist"),
        (["."], ". is a directory, not a recording"),
        (["--database", "."], "cannot be used as the business database"),
        (["--directory", "nobody.json"], "cannot be read"),
    ],
)
def test_a_path_that_cannot_be_used(arguments, message):
    assert message in fail(*arguments)


@pytest.mark.usefixtures("heard_once")
def test_review(tmp_path):
    (tmp_path / "note.wav").write_bytes(wav(shipped_sound(5.2)))
    for answer, verdict in (("y", "confirmed"), ("n", "rejected: reviewer declined")):
        outcome = CliRunner().invoke(app, ["note.wav", "--review"], input=f"{answer}\n")
        assert outcome.exit_code == 0
        assert verdict in outcome.stdout
    assert "review ended" in fail("note.wav", "--review")
