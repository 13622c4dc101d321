"""Read and check the header of a WAV file.

The standard library's `wave` reads no float samples, and trusts the length in the header.
This module reads PCM of 8 to 32 bits and float of 32 and 64, plain or WAVE_FORMAT_EXTENSIBLE, at
any rate and number of channels. Each error message completes a sentence after the file's name.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum

from voice_notes.errors import BrokenRecordingError

_PCM, _FLOAT, _EXTENSIBLE = 0x0001, 0x0003, 0xFFFE
_COMPRESSED = {0x0002: "ADPCM", 0x0006: "A-law", 0x0007: "µ-law", 0x0011: "ADPCM", 0x0055: "MP3"}

#: A program that writes to a pipe cannot fill in the length later. It leaves 0 or a huge
#: number. Accepted files are smaller than this (bytes).
_UNKNOWN_LENGTH = 0x7FFF_0000

_LOWEST_RATE, _HIGHEST_RATE = 2_000, 384_000

_OTHER_FILES = {
    b"ID3": "an MP3 file",
    b"\xff\xfb": "an MP3 file",
    b"\xff\xf3": "an MP3 file",
    b"\xff\xf2": "an MP3 file",
    b"OggS": "an Ogg file",
    b"fLaC": "a FLAC file",
    b"FORM": "an AIFF file",
    b"RIFX": "a big-endian WAV file (RIFX)",
    b"RF64": "a WAV file of the 64-bit kind (RF64)",
    b"\x1aE\xdf\xa3": "a Matroska or WebM file",
}


class Encoding(Enum):
    """The number format of a sample."""

    INTEGER = "integer"
    FLOAT = "float"


@dataclass(frozen=True)
class WavLayout:
    """The position of the sound in the file (bytes), and its encoding."""

    encoding: Encoding
    channels: int
    rate: int
    sample_bytes: int
    offset: int
    length: int

    @property
    def frames(self) -> int:
        """The number of frames: one sample for each channel."""
        return self.length // (self.channels * self.sample_bytes)

    @property
    def seconds(self) -> float:
        """The length in seconds."""
        return self.frames / self.rate


def read_layout(content: bytes) -> WavLayout:
    """Read the chunks of a WAV file. Raises `BrokenRecordingError` for a wrong header."""
    _require_wave(content)
    riff_length = _number(content, 4)
    position, form = 12, None
    while position + 8 <= len(content):
        name, length = content[position : position + 4], _number(content, position + 4)
        body = position + 8
        if name == b"fmt ":
            form = _read_format(content[body : body + length])
        elif name == b"data":
            if form is None:
                raise BrokenRecordingError("is broken: its sound comes before its format")
            encoding, channels, rate, sample_bytes = form
            held = _held(content, body, length, riff_length, channels * sample_bytes * rate)
            whole = held - held % (channels * sample_bytes)
            if whole == 0:
                raise BrokenRecordingError("holds no sound: it has a header and nothing after it")
            return WavLayout(encoding, channels, rate, sample_bytes, body, whole)
        position = body + length + length % 2  # chunks begin at even places
    missing = "sound" if form else "format"
    raise BrokenRecordingError(f"is broken: it ends before its {missing} begins")


def _require_wave(content: bytes) -> None:
    if not content:
        raise BrokenRecordingError("is empty")
    if content[:4] == b"RIFF" and content[8:12] == b"WAVE":
        return
    if content[:4] == b"RIFF" and len(content) < 12:
        raise BrokenRecordingError("is broken: it ends within its header")
    other = next((kind for mark, kind in _OTHER_FILES.items() if content.startswith(mark)), None)
    if content[4:8] == b"ftyp":
        other = "an MP4 file"
    raise BrokenRecordingError(f"is not a WAV file{f', but {other}' if other else ''}")


def _read_format(body: bytes) -> tuple[Encoding, int, int, int]:
    if len(body) < 16:
        raise BrokenRecordingError("is broken: the description of its format is cut short")
    tag, channels, rate, _, block, bits = struct.unpack_from("<HHIIHH", body)
    if tag == _EXTENSIBLE and len(body) >= 26:
        (tag,) = struct.unpack_from("<H", body, 24)  # the first two bytes of the subformat's GUID
    if tag not in (_PCM, _FLOAT):
        raise BrokenRecordingError(
            f"holds {_COMPRESSED.get(tag, f'sound of format {tag:#06x}')}; PCM or float is needed"
        )
    encoding = Encoding.FLOAT if tag == _FLOAT else Encoding.INTEGER
    if channels == 0 or not _LOWEST_RATE <= rate <= _HIGHEST_RATE:
        raise BrokenRecordingError(f"is broken: it claims {channels} channels at {rate} Hz")
    # 20 bits take 3 bytes, and 12 bits take 2. The width is the number of bytes.
    sample_bytes = block // channels
    widths = (4, 8) if encoding is Encoding.FLOAT else (1, 2, 3, 4)
    if block % channels or sample_bytes not in widths or not 0 < bits <= sample_bytes * 8:
        raise BrokenRecordingError(
            f"has {encoding.value} samples of {bits} bits, which none can play"
        )
    return encoding, channels, rate, sample_bytes


def _held(content: bytes, body: int, promised: int, riff_length: int, per_second: int) -> int:
    """Return the number of bytes of sound, or raise if the header disagrees."""
    present = len(content) - body
    if promised >= _UNKNOWN_LENGTH or (promised == 0 and riff_length in (0, 0xFFFF_FFFF)):
        return present
    if promised > present:
        raise BrokenRecordingError(
            f"is cut short: its header promises {promised / per_second:.1f} s of sound, "
            f"the file holds {present / per_second:.1f} s"
        )
    # More chunks may follow the sound. A second or more of other bytes is sound that the header
    # does not count. A few stray bytes are accepted.
    rest = content[body + promised + promised % 2 :]
    if len(rest) > per_second and not rest[:4].isascii():
        raise BrokenRecordingError(
            f"has a wrong header: it promises {promised / per_second:.1f} s of sound, "
            f"the file holds {present / per_second:.1f} s"
        )
    return promised


def _number(content: bytes, position: int) -> int:
    return int.from_bytes(content[position : position + 4], "little")
