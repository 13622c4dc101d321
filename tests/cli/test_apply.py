"""`sidelight apply` and `sidelight strip` on real code: the reference pipeline."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.commands import sidelight

import voice_notes


@pytest.fixture
def pipeline(tmp_path, monkeypatch):
    """A copy of voice_notes and its map, in the current directory."""
    source = Path(voice_notes.__file__).parent
    ignored = shutil.ignore_patterns("__pycache__", "recordings", "data")
    shutil.copytree(source, tmp_path / "voice_notes", ignore=ignored)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    Path("sidelight.toml").write_text(sidelight("points", "voice_notes", "--toml").out)
    return tmp_path


def sources(folder):
    return {path: path.read_bytes() for path in folder.glob("voice_notes/**/*.py")}


def points_of():
    return {
        each["point"]: [each["kind"], each["declarations"]]
        for each in sidelight("points", "voice_notes", "--json").json
    }


def test_stripped_and_written_again(pipeline):
    folder = pipeline
    decorated, known = sources(folder), points_of()
    assert len(known) == 12

    diff = sidelight("strip", "--diff")
    assert diff.code == 0
    assert diff.out.count("\n-@emits(") == 12
    assert sources(folder) == decorated

    assert sidelight("strip").out.splitlines() == [
        "voice_notes/actions/claims_extraction.py: 1 decorator",
        "voice_notes/actions/draft_generation.py: 1 decorator",
        "voice_notes/actions/entity_resolution.py: 1 decorator",
        "voice_notes/actions/voice_notes.py: 1 decorator",
        "voice_notes/artifacts.py: 2 decorators",
        "voice_notes/claims.py: 1 decorator",
        "voice_notes/drafts.py: 3 decorators",
        "voice_notes/entity_resolutions.py: 1 decorator",
        "voice_notes/transcripts.py: 1 decorator",
    ]
    stripped = sources(folder)
    assert points_of() == {}
    changed = [path for path in stripped if stripped[path] != decorated[path]]
    assert all(b"sidelight" not in stripped[path] for path in changed)
    assert all(b"counts" not in stripped[path] for path in changed)

    assert sidelight("apply").code == 0
    applied = sources(folder)
    assert points_of() == known
    again = sidelight("apply")
    assert (again.code, again.out, again.err) == (0, "", "there is nothing to change\n")
    ruff = ["-m", "ruff", "check", "--isolated", "--line-length=100", "--select=I,F401", *changed]
    for check in (ruff, ["-c", "import voice_notes.pipeline, voice_notes.events"]):
        done = subprocess.run(
            [sys.executable, *check], cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    assert sidelight("strip").code == 0
    assert sources(folder) == stripped
    assert sidelight("apply").code == 0
    assert sources(folder) == applied


def test_a_patch_of_what_would_change(pipeline):
    folder = pipeline
    patch = folder / "strip.patch"
    patch.write_text(sidelight("strip", "--diff").out)
    expected = sources(folder)
    sidelight("strip")
    stripped = sources(folder)
    subprocess.run(["patch", "-R", "-p1", "-i", patch], cwd=folder, check=True, capture_output=True)
    assert sources(folder) == expected
    subprocess.run(["patch", "-p1", "-i", patch], cwd=folder, check=True, capture_output=True)
    assert sources(folder) == stripped


def test_all_or_nothing(pipeline):
    folder = pipeline
    sidelight("strip")
    stripped = sources(folder)
    path = folder / "sidelight.toml"
    path.write_text(path.read_text().replace("drafts:reject_draft", "drafts:reject"))
    said = sidelight("apply")
    assert said.code == 1
    assert "voice_notes.drafts:reject: it is not there; did you mean reject_draft?" in said.err
    assert "nothing was written" in said.err
    assert sources(folder) == stripped


def test_help():
    for command in ("apply", "strip"):
        said = sidelight(command, "--help")
        assert "--diff" in said.out
        assert "Example" in said.out
