import pytest
from tests.voice_notes.wavs import SHIPPED

from voice_notes.audio import Recording
from voice_notes.database import open_database
from voice_notes.directory import Directory


@pytest.fixture(scope="session")
def shipped():
    return Recording.read(SHIPPED)


@pytest.fixture
def sessions(tmp_path):
    with open_database(tmp_path / "business.db") as maker:
        yield maker


@pytest.fixture(scope="session")
def directory():
    return Directory.read()
