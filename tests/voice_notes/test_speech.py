"""The tests with the real recognizer. They are slow."""

import asyncio

import numpy as np
import pytest
from tests.voice_notes.wavs import shipped_sound, wav

from voice_notes.actions.voice_notes import transcribe_audio
from voice_notes.audio import Recording
from voice_notes.errors import BrokenRecordingError, SilentRecordingError
from voice_notes.speech import LONGEST_PASSAGE, Passage, find_passages, passages

#: "Note after the visit to Northwind. Daniel Weber approved the new budget."
BEGINNING = shipped_sound(5.2)


def transcribe(content: bytes) -> str:
    return asyncio.run(transcribe_audio("a1", Recording("note.wav", content)))


@pytest.mark.parametrize(
    "kind",
    [
        {"rate": 8_000, "bits": 8, "channels": 2},
        {"rate": 48_000, "bits": 32, "channels": 2, "is_float": True},
    ],
    ids=["the coarsest", "the finest"],
)
def test_the_coarsest_and_the_finest_kind_of_file_are_understood(kind):
    """All kinds between them are decoded to the same sound."""
    text = transcribe(wav(BEGINNING, **kind))
    assert "Daniel" in text
    assert "approved the new budget" in text


@pytest.mark.usefixtures("heard_once")
async def test_the_shipped_recording(shipped):
    seen = []
    text = await transcribe_audio("a1", shipped, on_progress=lambda *step: seen.append(step))
    for words in ("Daniel We", "revised offer by Friday", "Maria Santos has moved", "Emma"):
        assert words in text
    assert seen[0] == (0, 1)
    assert seen[-1] == (1, 1)


NOISE = np.random.default_rng(7).normal(0, 0.05, 80_000).astype(np.float32)


@pytest.mark.parametrize(
    "sound",
    [
        np.zeros(80_000, np.float32),
        np.zeros(1, np.float32),
        NOISE,
        NOISE / 1_000,
        np.full(32_000, 0.5, np.float32),
        (0.3 * np.sin(np.arange(80_000) / 5)).astype(np.float32),
    ],
    ids=["silence", "one sample", "noise", "faint noise", "constant", "tone"],
)
def test_where_nobody_speaks_nothing_is_heard(sound):
    with pytest.raises(SilentRecordingError, match=r"nobody is heard speaking in note\.wav"):
        transcribe(wav(sound))


def test_a_voice_heard_before_is_forgotten():
    for _ in range(3):
        assert find_passages(BEGINNING[: 2 * 16_000])
        assert find_passages(NOISE) == []


def test_a_broken_recording():
    with pytest.raises(BrokenRecordingError):
        transcribe(b"RIFF")


def test_long_silence_around_speech_is_left_out():
    silence = np.zeros(10 * 16_000, np.float32)
    found = find_passages(np.concatenate([silence, BEGINNING, silence]))
    assert len(found) == 1
    assert 9.0 < found[0].start < 11.0
    assert 14.0 < found[0].end < 16.5


def test_neighbours_are_joined_and_distant_stretches_are_not():
    sound = np.zeros(40 * 16_000, np.float32)
    spoken = [Passage(1, 3), Passage(3.5, 6), Passage(12, 14), Passage(20, 20.1)]
    assert passages(spoken, sound) == [
        Passage(1 - 0.3, 6 + 0.3),
        Passage(12 - 0.3, 14 + 0.3),
    ]


def test_a_long_stretch_is_cut_where_it_is_quietest():
    sound = np.ones(60 * 16_000, np.float32)
    sound[20 * 16_000 : 21 * 16_000] = 0
    sound[39 * 16_000 : 40 * 16_000] = 0
    found = passages([Passage(0, 60)], sound)
    assert [round(passage.start) for passage in found] in ([0, 20, 39], [0, 20, 40], [0, 21, 40])
    assert all(passage.end - passage.start <= LONGEST_PASSAGE for passage in found)
    assert found[0].end == found[1].start
