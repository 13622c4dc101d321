"""What is asked of the operating system, where it answers otherwise than usual."""

import errno
import os

import pytest

from sidelight.host import IS_LINUX
from sidelight.spool import filesystems
from sidelight.spool.system import populate


class Mapping(dict):
    """Memory of four pages; its pages are touched by reading and writing."""

    def __init__(self, problem):
        super().__init__({page * 4096: 0 for page in range(4)})
        self.problem, self.touched = problem, []

    def madvise(self, *_):
        raise OSError(self.problem, os.strerror(self.problem))

    def __setitem__(self, page, value):
        self.touched.append(page)
        super().__setitem__(page, value)


@pytest.mark.skipif(not IS_LINUX, reason="only Linux populates a mapping by a call")
@pytest.mark.parametrize("problem", [errno.EINVAL, errno.EFAULT, errno.ENOMEM], ids=os.strerror)
def test_pages_are_touched_only_where_the_call_is_missing(problem):
    """Where the kernel finds no page for a mapping, touching it would be a SIGBUS."""
    mapping = Mapping(problem)
    populate(mapping, 4 * 4096)
    assert bool(mapping.touched) == (problem == errno.EINVAL)


def test_the_kind_of_a_filesystem_is_kept_for_its_directory_only(tmp_path, monkeypatch):
    """The number of a device is given again after an unmount."""
    kinds = iter(["ext4", "nfs4", "tmpfs"])
    monkeypatch.setattr(filesystems, "_mounted", lambda _: next(kinds))
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    asked = [filesystems.filesystem(each) for each in (first, second, first)]
    assert asked == ["ext4", "nfs4", "ext4"]
    first.rename(tmp_path / "away")
    first.mkdir()
    assert filesystems.filesystem(first) == "tmpfs"
