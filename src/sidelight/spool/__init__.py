"""Frames in, frames out; what was written outlives the process.

The caller copies a frame into a memory-mapped segment; readers scan segments from a cursor for
each sink. A lock says whether a segment's owner lives. `disk` is the only seam to the operating
system.
"""

from sidelight.spool.directory import filesystem, prepare_directory, segments_in, usable
from sidelight.spool.failures import why
from sidelight.spool.header import PAGE
from sidelight.spool.quarantine import Entry, Quarantine
from sidelight.spool.scanner import Batch, Scanner, salvage
from sidelight.spool.segment import Segment
from sidelight.spool.sink import Health, Record, Sink
from sidelight.spool.supply import SMALLEST, SPARES
from sidelight.spool.writer import Position, Spool

__all__ = [
    "PAGE",
    "SMALLEST",
    "SPARES",
    "Batch",
    "Entry",
    "Health",
    "Position",
    "Quarantine",
    "Record",
    "Scanner",
    "Segment",
    "Sink",
    "Spool",
    "filesystem",
    "prepare_directory",
    "salvage",
    "segments_in",
    "usable",
    "why",
]
