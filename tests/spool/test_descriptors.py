"""A descriptor whose number was closed by other code and opened again is another file."""

import os

import pytest
from tests.support.platforms import needs_spool_files

from sidelight.record import frame
from sidelight.spool import PAGE, Segment

pytestmark = needs_spool_files

SIZE = 64 * 1024


@pytest.fixture
def reused(tmp_path):
    """A segment whose number other code has closed, and the segment that has the number now."""
    old = Segment.create(tmp_path, SIZE, {"sinks": ["store"]})
    old.write(frame(b"x" * 100))
    number = int(old.fd)
    os.close(number)
    new = Segment.create(tmp_path, SIZE, {"sinks": ["store"]})
    assert int(new.fd) == number
    return old, new


def test_no_cursor_is_written_into_the_newer_segment(reused):
    old, new = reused
    before = new.path.read_bytes()[:PAGE]
    for change in (
        lambda: old.advance("store", old.tell()),
        lambda: old.disk.truncate(old.fd, PAGE),
        lambda: old.disk.sync(old.fd),
    ):
        with pytest.raises(OSError, match="closed the descriptor"):
            change()
    assert new.path.read_bytes()[:PAGE] == before
    assert new.path.stat().st_size == SIZE


def test_the_newer_segment_stays_open_and_locked(reused):
    old, new = reused
    assert old.has_lost_file()
    assert not new.has_lost_file()
    old.close()
    new.write(frame(b"new"))
    assert new.has_descriptor()
    assert Segment.adopt(new.path) is None
