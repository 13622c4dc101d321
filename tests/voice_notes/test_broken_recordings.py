"""A recording that cannot be decoded raises an error of the pipeline, with a reason."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.voice_notes.wavs import chunk, encode, form, riff, shipped_sound, wav

from voice_notes.audio import Recording
from voice_notes.errors import BrokenRecordingError, UnreadableFileError

GOOD = wav(shipped_sound(2.0))
PCM = form(16_000, 1, 16)
DATA = chunk(b"data", encode(shipped_sound(2.0)[:, None], 16))

BROKEN = {
    "empty": (b"", "is empty"),
    "text": (b"this is no sound at all", "is not a WAV file"),
    "mp3": (b"ID3\x04" + bytes(400), "is not a WAV file, but an MP3 file"),
    "mp4": (b"\0\0\0\x20ftypM4A " + bytes(400), "is not a WAV file, but an MP4 file"),
    "ogg": (b"OggS" + bytes(400), "is not a WAV file, but an Ogg file"),
    "ends within the header": (GOOD[:10], "ends within its header"),
    "ends after the header": (GOOD[:12], "ends before its format begins"),
    "ends within the format": (GOOD[:30], "format is cut short"),
    "ends before the sound": (GOOD[:50], "ends before its sound begins"),
    "no frames": (riff(PCM, chunk(b"data", b"")), "holds no sound"),
    "half a frame": (riff(PCM, chunk(b"data", b"\1")), "holds no sound"),
    "sound before format": (riff(DATA, PCM), "sound comes before its format"),
    "cut in the middle": (GOOD[: len(GOOD) // 2], r"promises 2.0 s of sound, .* holds 1.0 s"),
    "promises too much": (riff(PCM, DATA[:4] + b"\0\0\0\1" + DATA[8:]), "is cut short"),
    "promises too little": (
        riff(PCM, DATA[:4] + b"\0\1\0\0" + DATA[8:264] + b"\xff\xfe" * 30_000),
        "has a wrong header",
    ),
    "mu-law": (riff(form(8_000, 1, 8, tag=7), DATA), "µ-law"),
    "unheard-of format": (riff(form(8_000, 1, 8, tag=0x1234), DATA), "format 0x1234"),
    "no channels": (riff(form(16_000, 0, 16), DATA), "0 channels"),
    "no rate": (riff(form(0, 1, 16), DATA), "at 0 Hz"),
    "absurd rate": (riff(form(4_000_000_000 // 2, 1, 16), DATA), "Hz"),
    "40 bits": (riff(form(16_000, 1, 40), DATA), "40 bits"),
    "16 bit float": (riff(form(16_000, 1, 16, tag=3), DATA), "float samples of 16 bits"),
    "no numbers": (
        wav(np.full(1_000, np.nan, np.float32), bits=32, is_float=True),
        "samples are not numbers",
    ),
}


@pytest.mark.parametrize(("content", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_broken(content, message):
    recording = Recording("note.wav", content)
    with pytest.raises(BrokenRecordingError, match=rf"^note\.wav .*{message}"):
        recording.sound()


def test_a_broken_recording_still_has_name_size_and_digest():
    recording = Recording("note.wav", b"")
    assert (recording.seconds, recording.size, len(recording.digest)) == (None, 0, 64)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_headers_never_surprise(data):
    content = bytearray(GOOD[:2_000])
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, 80))] = data.draw(st.integers(0, 255))
    try:
        sound = Recording("note.wav", bytes(content)).sound()
    except BrokenRecordingError:
        return
    assert sound.dtype == np.float32
    assert np.isfinite(sound).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "is a directory"),
        (lambda path: path.touch() or os.truncate(path, 300 * 2**20), "larger than 256 MB"),
    ],
    ids=["missing", "directory", "too large"],
)
def test_unreadable_file(tmp_path, make, message):
    make(tmp_path / "note.wav")
    with pytest.raises(UnreadableFileError, match=message):
        Recording.read(tmp_path / "note.wav")
