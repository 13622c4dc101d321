"""The same pipeline without a decorator, under its map: the same events."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.commands import sidelight

import voice_notes

#: Takes a note through the pipeline, and prints each event; under a map where one is named.
#: The recognizer hears each passage once: the second program reads its words from a file.
PROGRAM = """
import asyncio, json, sys
from pathlib import Path
import sidelight
from sidelight.testing import capture

if sys.argv[2:]:
    from voice_notes.drafts import create_drafts  # imported already when it is woven
    sidelight.weave(sys.argv[2])
import voice_notes
assert Path(voice_notes.__file__).parent == Path(sys.argv[1]), voice_notes.__file__
from voice_notes import directory
from voice_notes.audio import Recording
from voice_notes.database import open_database
from voice_notes.errors import BrokenRecordingError
from voice_notes.pipeline import Pipeline
from voice_notes.actions import voice_notes as actions

words = Path("words.json")
known = json.loads(words.read_text()) if words.exists() else {}
hear = actions.hear

def hear_once(sound, passage):
    if repr(passage) not in known:
        known[repr(passage)] = hear(sound, passage)
    return known[repr(passage)]

actions.hear = hear_once

async def take(sessions):
    people = directory.Directory.read()
    candidates = people.candidates()
    pipeline = Pipeline(sessions, people.people_of(candidates))
    recordings = Path(voice_notes.__file__).parent / "recordings"
    await pipeline.process(Recording.read(recordings / "northwind.wav"), candidates)
    try:
        await pipeline.process(Recording("broken.wav", b"RIFF"), candidates)
    except BrokenRecordingError:
        pass

with open_database(Path("business.db")) as sessions, capture() as recorded:
    asyncio.run(take(sessions))
words.write_text(json.dumps(known))
for event in recorded:
    print(json.dumps([
        event.type, event.point, event.mode, event.outcome, event.artifact_id,
        event.organization_id, event.attributes, event.error_type,
        bool(event.duration_ns), bool(event.trace_id),
    ], default=str))
"""


@pytest.fixture
def stripped(tmp_path, monkeypatch):
    """A copy of the pipeline without its decorators, and the map of them."""
    package = tmp_path / "voice_notes"
    source = Path(voice_notes.__file__).parent
    shutil.copytree(source, package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    Path("sidelight.toml").write_text(sidelight("points", "voice_notes", "--toml").out)
    assert sidelight("strip").code == 0
    assert sidelight("points", "voice_notes", "--json").out == ""
    return package


def events_of(package, *arguments):
    """The events of the program; ids are told apart by when they are first seen."""
    Path("business.db").unlink(missing_ok=True)
    search = [str(package.parent), *filter(None, sys.path)]
    program = f"import sys; sys.path[:0] = {search!r}\n{PROGRAM}"
    ended = subprocess.run(
        [sys.executable, "-c", program, package, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    seen: dict[str, str] = {}
    text = re.sub(
        r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}",
        lambda found: seen.setdefault(found[0], f"id {len(seen)}"),
        ended.stdout,
    )
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.slow
def test_stripped_and_woven_it_emits_the_same(stripped):
    decorated = events_of(Path(voice_notes.__file__).parent)
    types = {event[0] for event in decorated}
    assert len(decorated) > 15
    assert {"artifact_received", "claims_extracted", "transcription_failed"} <= types
    assert events_of(stripped, "sidelight.toml") == decorated
