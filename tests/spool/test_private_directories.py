"""No other user may write where records lie, whatever the umask."""

import logging
import os

import pytest
from tests.support.platforms import needs_spool_files
from tests.support.stored import record, store

from sidelight.spool import make_private_directory, usable_directory

pytestmark = needs_spool_files


@pytest.fixture(autouse=True)
def open_umask():
    before = os.umask(0)
    yield
    os.umask(before)


def modes(*paths):
    return [oct(path.stat().st_mode & 0o7777) for path in paths]


def test_a_directory_is_made_private_with_all_its_parents(tmp_path):
    directory = tmp_path / "state" / "sidelight" / "spool"
    make_private_directory(directory)
    make_private_directory(directory)
    assert modes(directory, *directory.parents[:2]) == ["0o700"] * 3


@pytest.mark.parametrize("error", [FileExistsError, NotADirectoryError])
def test_a_file_in_the_way_is_an_error(tmp_path, error):
    (tmp_path / "file").touch()
    inside = {FileExistsError: "", NotADirectoryError: "directory"}[error]
    with pytest.raises(error):
        make_private_directory(tmp_path / "file" / inside)


def test_the_directories_of_a_store_are_private(tmp_path):
    path = tmp_path / "state" / "data" / "events.db"
    store(f"sqlite:///{path}", [record()])
    assert modes(path.parent, path.parent.parent, path) == ["0o700", "0o700", "0o600"]


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o770, 0o707, 0o777])
def test_a_spool_that_others_may_write_is_told_once_with_the_remedy(tmp_path, mode, caplog):
    directory = tmp_path / "spool"
    directory.mkdir(mode=mode)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert usable_directory(directory, lambda *_: None) == directory
    warnings = [message for message in caplog.messages if f"chmod 700 {directory}" in message]
    assert len(warnings) == bool(mode & 0o022)
