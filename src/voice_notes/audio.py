"""Recordings: the bytes of a WAV file, and the sound in it.

`Recording` accepts any bytes, because a note that cannot be decoded is also an artifact.
Its transcription fails. Only `sound()` decodes.
"""

from __future__ import annotations

import hashlib
import stat
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from voice_notes.errors import BrokenRecordingError, UnreadableFileError
from voice_notes.resampling import resample
from voice_notes.wav import Encoding, WavLayout, read_layout

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt


#: The sample rate of the recognizer, in Hz.
SAMPLE_RATE = 16_000

#: In bytes. Two hours at 16 kHz are smaller. Decoding takes several times this memory.
LARGEST_FILE = 256 * 2**20

#: The gain is limited, because a raised noise floor would sound like a voice.
TARGET_PEAK = 0.7
LARGEST_GAIN = 30.0


@dataclass(frozen=True)
class Recording:
    """One recorded note: its name and the bytes of its file."""

    name: str
    content: bytes

    @classmethod
    def read(cls, path: Path) -> Recording:
        """Read the file at `path`. Its content is not checked."""
        try:
            if stat.S_ISDIR(path.stat().st_mode):
                raise UnreadableFileError(f"{path} is a directory, not a recording")
            with path.open("rb") as file:
                content = file.read(LARGEST_FILE + 1)
        except FileNotFoundError:
            raise UnreadableFileError(f"{path} does not exist") from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UnreadableFileError(f"{path} cannot be read: {reason}") from error
        if len(content) > LARGEST_FILE:
            raise UnreadableFileError(
                f"{path} is larger than {LARGEST_FILE // 2**20} MB; a note is shorter than that"
            )
        return cls(name=path.name, content=content)

    @property
    def size(self) -> int:
        """The size of the file in bytes."""
        return len(self.content)

    @property
    def digest(self) -> str:
        """The SHA-256 of the file. It identifies the same note when it arrives again."""
        return hashlib.sha256(self.content).hexdigest()

    @cached_property
    def layout(self) -> WavLayout:
        """The position of the sound in the file, and its encoding."""
        try:
            return read_layout(self.content)
        except BrokenRecordingError as error:
            raise BrokenRecordingError(f"{self.name} {error}") from None

    @property
    def seconds(self) -> float | None:
        """The length of the note in seconds. None if the file cannot be decoded."""
        try:
            return round(self.layout.seconds, 3)
        except BrokenRecordingError:
            return None

    def sound(self) -> npt.NDArray[np.float32]:
        """Decode to mono at `SAMPLE_RATE`, centre on zero, and raise a quiet recording."""
        layout = self.layout
        channels = _decode(self.content, layout)
        if not np.isfinite(channels).all():
            raise BrokenRecordingError(f"{self.name} is damaged: some samples are not numbers")
        mono = _mix(channels)
        return _level(resample(mono, layout.rate, SAMPLE_RATE))


def _decode(content: bytes, layout: WavLayout) -> npt.NDArray[np.float32]:
    """Return an array of (frames, channels) with values from -1 to 1."""
    samples: npt.NDArray[np.float32]
    raw = np.frombuffer(content, np.uint8, count=layout.length, offset=layout.offset)
    if layout.encoding is Encoding.FLOAT:
        with np.errstate(all="ignore"):  # a damaged file holds numbers too large for float32
            samples = raw.view(f"<f{layout.sample_bytes}").astype(np.float32)
    elif layout.sample_bytes == 1:
        samples = raw.astype(np.float32) / np.float32(128) - np.float32(
            1
        )  # the only unsigned width
    else:
        # The bytes go to the top of a 32-bit number, because that keeps the sign at every width.
        wide = np.zeros((raw.size // layout.sample_bytes, 4), np.uint8)
        wide[:, 4 - layout.sample_bytes :] = raw.reshape(-1, layout.sample_bytes)
        samples = wide.view("<i4").ravel().astype(np.float32) / np.float32(2**31)
    return samples.reshape(-1, layout.channels)


def _mix(channels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Mix to mono. Take the loudest channel if mixing would weaken the voice.

    Channels in opposite phase cancel out. One microphone among many silent channels
    becomes too quiet.
    """
    mixed: npt.NDArray[np.float32] = channels.mean(axis=1, dtype=np.float32)
    loudness = channels.std(axis=0)
    loudest = int(loudness.argmax())
    return mixed if mixed.std() >= loudness[loudest] / 2 else channels[:, loudest]


def _level(sound: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Centre on zero, raise a quiet recording, and lower one above full scale."""
    centred: npt.NDArray[np.float32] = sound - sound.mean(dtype=np.float64).astype(np.float32)
    peak = float(np.abs(centred).max())
    if peak > 0 and not TARGET_PEAK <= peak <= 1:
        centred *= np.float32(min(TARGET_PEAK / peak, LARGEST_GAIN))
    return centred
