import pytest
from tests.voice_notes.wavs import SHIPPED

from voice_notes.audio import Recording
from voice_notes.database import open_database
from voice_notes.directory import Directory


@pytest.fixture(autouse=True, scope="session")
def _events_elsewhere(tmp_path_factory):
    """What these tests emit must not end up in the store of whoever runs them."""
    place = tmp_path_factory.mktemp("events")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIDELIGHT_STORE", f"sqlite:///{place}/events.db")
        patch.setenv("SIDELIGHT_SPOOL", str(place / "spool"))
        yield


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
