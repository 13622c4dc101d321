"""Every kind of WAV file is decoded to the same sound."""

import numpy as np
import pytest
from tests.voice_notes.wavs import chunk, encode, form, riff, shipped_sound, wav

from voice_notes.audio import SAMPLE_RATE, Recording
from voice_notes.resampling import resample

SOUND = shipped_sound(2.0)


def decoded(content: bytes) -> np.ndarray:
    return Recording("note.wav", content).sound()


def assert_same(found: np.ndarray, expected: np.ndarray = SOUND, least: float = 0.99):
    assert abs(len(found) - len(expected)) <= 2
    common = min(len(found), len(expected))
    assert np.corrcoef(found[:common], expected[:common])[0, 1] > least


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_rates_and_channels(rate, channels):
    recording = Recording("note.wav", wav(SOUND, rate=rate, channels=channels))
    assert recording.seconds == pytest.approx(2.0, abs=0.001)
    # A recording at 8 kHz has lost its consonants.
    assert_same(recording.sound(), least=0.9 if rate < 11_000 else 0.99)


@pytest.mark.parametrize("extensible", [False, True])
@pytest.mark.parametrize(
    ("bits", "is_float"),
    [(8, False), (16, False), (24, False), (32, False), (32, True), (64, True)],
)
def test_widths(bits, is_float, extensible):
    assert_same(decoded(wav(SOUND, bits=bits, is_float=is_float, extensible=extensible)))


def test_all_of_it_at_once():
    assert_same(decoded(wav(SOUND, rate=44_100, channels=2, bits=24, extensible=True)))


def test_twenty_bits_in_three_bytes():
    body = form(16_000, 1, 24).replace(b"\x18\0", b"\x14\0")
    assert_same(decoded(riff(body, chunk(b"data", encode(SOUND[:, None], 24)))))


def test_channels_in_opposite_phase_do_not_cancel_out():
    both = np.stack([SOUND, -SOUND], axis=1)
    found = decoded(riff(form(16_000, 2, 16), chunk(b"data", encode(both, 16))))
    assert_same(np.abs(found), np.abs(SOUND))


def test_one_voice_among_silent_channels():
    eight = np.zeros((len(SOUND), 8), np.float32)
    eight[:, 5] = SOUND
    assert_same(decoded(riff(form(16_000, 8, 16), chunk(b"data", encode(eight, 16)))))


def test_quiet_and_loud_and_shifted_recordings_are_levelled():
    quiet = decoded(wav(SOUND / 20, is_float=True, bits=32))
    loud = decoded(wav(SOUND * 50, is_float=True, bits=32))
    shifted = decoded(wav(SOUND / 4 + np.float32(0.5)))
    for found in (quiet, loud, shifted):
        assert 0.5 <= np.abs(found).max() <= 1.0
        assert abs(found.mean()) < 1e-4
        assert_same(found)


@pytest.mark.parametrize("placeholder", [0, 0xFFFF_FFFF, 0x7FFF_F000, 0x8000_0000])
def test_length_unknown_to_the_writer(placeholder):
    """sox, ffmpeg and arecord leave such a length when they write to a pipe."""
    data = chunk(b"data", encode(SOUND[:, None], 16), length=placeholder)
    assert_same(decoded(riff(form(16_000, 1, 16), data, length=placeholder)))


def test_chunks_behind_the_sound_are_not_sound():
    data = chunk(b"data", encode(SOUND[:, None], 16))
    note = chunk(b"note", b"\xe9" * 100_000)
    recording = Recording("note.wav", riff(form(16_000, 1, 16), data, note))
    assert recording.seconds == 2.0


def test_a_file_changes_its_digest_with_its_content(shipped):
    assert len(shipped.digest) == 64
    assert shipped.digest != Recording("x.wav", shipped.content + b"\0").digest


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_051, 44_100, 48_000, 192_000])
def test_resampling_keeps_tones_and_drops_what_cannot_be_kept(rate):
    time = np.arange(rate) / rate
    kept = resample(np.sin(2 * np.pi * 440 * time).astype(np.float32), rate, SAMPLE_RATE)
    expected = np.sin(2 * np.pi * 440 * np.arange(SAMPLE_RATE) / SAMPLE_RATE)
    assert np.abs(kept - expected)[200:-200].max() < 1e-3
    if rate > 2 * 9_500:
        dropped = resample(np.sin(2 * np.pi * 9_500 * time).astype(np.float32), rate, SAMPLE_RATE)
        assert np.abs(dropped)[200:-200].max() < 1e-2


def test_resampling_a_single_sample():
    assert len(resample(np.ones(1, np.float32), 48_000, SAMPLE_RATE)) == 1
