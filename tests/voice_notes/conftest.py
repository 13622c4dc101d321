import pytest
from tests.voice_notes.wavs import SHIPPED

from voice_notes.audio import Recording
from voice_notes.database import open_database
from voice_notes.directory import Directory
from voice_notes.speech import hear


@pytest.fixture(scope="session")
def shipped():
    return Recording.read(SHIPPED)


@pytest.fixture
def sessions(tmp_path):
    with open_database(tmp_path / "business.db") as maker:
        yield maker


@pytest.fixture(scope="session")
def words():
    return {}


@pytest.fixture
def heard_once(words, monkeypatch):
    """Let the recognizer hear each sound once; later its words are given again, to save seconds."""

    def hear_once(sound, passage):
        key = (sound.tobytes(), passage)
        if key not in words:
            words[key] = hear(sound, passage)
        return words[key]

    monkeypatch.setattr("voice_notes.actions.voice_notes.hear", hear_once)


@pytest.fixture(scope="session")
def directory():
    return Directory.read()
