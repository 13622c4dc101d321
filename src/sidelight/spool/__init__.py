"""Frames in, frames out; every frame survives the death of its process.

The caller copies a frame into a memory-mapped segment. A relay scans segments from one cursor for
each sink. A lock on the file tells whether the writer of a segment lives. `disk` is the only seam
to the operating system.
"""

from typing import TYPE_CHECKING

from sidelight.host import lazily
from sidelight.spool.allocation import NAME
from sidelight.spool.directory import (
    prepare_directory,
    require_file_locks,
    segments_in,
    usable_directory,
)
from sidelight.spool.disk import DISK, make_private_directory
from sidelight.spool.erasing import Choose, Overwritten, erase_records
from sidelight.spool.failures import FailureCounter, RateLimiter, os_error_text
from sidelight.spool.filesystems import filesystem
from sidelight.spool.header import PAGE
from sidelight.spool.hot import HotSegment, hot_directory, unseen_hot
from sidelight.spool.quarantine import Entry, Quarantine
from sidelight.spool.rescue import Rescue, is_volatile
from sidelight.spool.scanner import Batch, Scanner
from sidelight.spool.segment import Segment
from sidelight.spool.sink import (
    DefersWork,
    DropsErased,
    Health,
    NotesProcesses,
    Record,
    Sink,
    acknowledging_sink,
)
from sidelight.spool.supply import SMALLEST, SPARES
from sidelight.spool.system import pread, sync, sync_directory
from sidelight.spool.writer import Position, Spool

if TYPE_CHECKING:
    from sidelight.spool.strays import Stray, strays_of

__getattr__ = lazily(__name__, {"strays": "Stray strays_of"})

__all__ = [
    "DISK",
    "NAME",
    "PAGE",
    "SMALLEST",
    "SPARES",
    "Batch",
    "Choose",
    "DefersWork",
    "DropsErased",
    "Entry",
    "FailureCounter",
    "Health",
    "HotSegment",
    "NotesProcesses",
    "Overwritten",
    "Position",
    "Quarantine",
    "RateLimiter",
    "Record",
    "Rescue",
    "Scanner",
    "Segment",
    "Sink",
    "Spool",
    "Stray",
    "acknowledging_sink",
    "erase_records",
    "filesystem",
    "hot_directory",
    "is_volatile",
    "make_private_directory",
    "os_error_text",
    "pread",
    "prepare_directory",
    "require_file_locks",
    "segments_in",
    "strays_of",
    "sync",
    "sync_directory",
    "unseen_hot",
    "usable_directory",
]
