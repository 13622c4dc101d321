"""Find segments that a living process still writes, and that are in its spool no more.

The directory was moved, replaced or deleted under the process. A process without a relay of its own
notices at its next segment only. Other processes can see it by ``/proc``: what it has mapped, under
which path the kernel knows the file now, and which spool the header names.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sidelight.spool.allocation import NAME, SUFFIX
from sidelight.spool.directory import segments_in
from sidelight.spool.header import PAGE, decode_header

_PROCESSES: Final = Path("/proc")
_DELETED: Final = " (deleted)"
_WRITABLE: Final = " rw-s "  # as a writer maps its segment; readers map nothing


@dataclass(frozen=True, slots=True)
class Stray:
    """A segment that is in its spool no more.

    Attributes:
        path: where the file is now, or was.
        is_deleted: whether it has no name any more, so that it ends with its process.
        meta: what its header says of the writer.
    """

    path: Path
    is_deleted: bool
    meta: dict[str, Any]


def strays_of(directory: Path) -> Iterator[Stray]:
    """Yield the segments that processes write for a spool, and that are not in it.

    Only processes of this user (root sees all) and of this pid namespace can be seen. Nothing is
    yielded on a system without ``/proc``.

    Args:
        directory: of the spool; it need not exist.
    """
    known = set()
    with contextlib.suppress(OSError):
        known = {_file(path) for path in segments_in(directory)}
    spool = os.path.realpath(directory)
    for process in _PROCESSES.glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or belongs to another user
            for path, descriptor in _written_by(process):
                with contextlib.suppress(OSError):
                    meta = decode_header(_first_page(descriptor)).meta
                    is_of_spool = os.path.realpath(str(meta.get("spool"))) == spool
                    if is_of_spool and _file(descriptor) not in known:
                        name = path.removesuffix(_DELETED)
                        yield Stray(Path(name), name != path, meta)


def _written_by(process: Path) -> Iterator[tuple[str, Path]]:
    """Yield the segments that a process has mapped and open: path and descriptor."""
    maps = (process / "maps").read_bytes()
    if SUFFIX.encode() not in maps:
        return  # as most processes of a machine, because hundreds of lines take long to compare
    mapped = {
        line[line.index("/") :]
        for line in maps.decode(errors="replace").splitlines()
        if _WRITABLE in line and NAME.fullmatch(_name(line))
    }
    for descriptor in (process / "fd").iterdir() if mapped else ():
        with contextlib.suppress(OSError):
            path = os.readlink(descriptor)  # noqa: PTH115  # the text, not a path
            if path in mapped:
                yield path, descriptor


def _name(line: str) -> str:
    return line.removesuffix(_DELETED).rpartition("/")[2]


def _first_page(descriptor: Path) -> bytes:
    with descriptor.open("rb") as file:
        return file.read(PAGE)


def _file(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino
