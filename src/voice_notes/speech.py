"""Speech recognition with Moonshine's tiny English model, which is part of its wheel.

The model works best on long passages. Its own voice detector cuts at every short pause, and then
the model mishears names at the start of sentences. Without a detector the model hears words in
silence. So the detector finds speech, `passages` joins it to stretches of up to
`LONGEST_PASSAGE` seconds, and the model transcribes each stretch as a whole.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from voice_notes.audio import SAMPLE_RATE
from voice_notes.errors import RecognizerError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt


class _Line(Protocol):
    text: str
    start_time: float
    duration: float


class _Transcript(Protocol):
    lines: list[_Line]


class _Transcriber(Protocol):
    def transcribe_without_streaming(self, audio: list[float], rate: int, /) -> _Transcript: ...


#: In seconds, as all numbers below. Longer passages lose words, shorter ones lose context.
LONGEST_PASSAGE = 24.0

#: A pause of this length ends a passage, even if the next stretch would fit.
LONGEST_PAUSE = 2.0

#: Time added on both sides, because the detector misses soft consonants.
MARGIN = 0.3

#: The length of one call of the detector. Its binding makes a Python float of each sample.
DETECTOR_WINDOW = 30.0

#: Shorter stretches are clicks or coughs.
SHORTEST_SPEECH = 0.25

#: Neither model is documented as safe for several threads.
_one_at_a_time = Lock()


class Passage(NamedTuple):
    """A stretch of the recording in which somebody speaks, in seconds."""

    start: float
    end: float


def find_passages(sound: npt.NDArray[np.float32]) -> list[Passage]:
    """Return the passages of speech in a recording. Empty if nobody speaks."""
    detector = _load({"skip_transcription": "true"})
    # The detector keeps state: after speech it takes noise for more speech, also in a new
    # instance. A second of silence resets it.
    with _one_at_a_time:
        detector.transcribe_without_streaming([0.0] * SAMPLE_RATE, SAMPLE_RATE)
    spoken = []
    for begin in range(0, len(sound), _sample(DETECTOR_WINDOW)):
        window = sound[begin : begin + _sample(DETECTOR_WINDOW)]
        offset = begin / SAMPLE_RATE
        with _one_at_a_time:
            lines = detector.transcribe_without_streaming(window.tolist(), SAMPLE_RATE).lines
        for line in lines:
            start = offset + line.start_time
            spoken.append(Passage(start, start + line.duration))
    return passages(spoken, sound)


def hear(sound: npt.NDArray[np.float32], passage: Passage) -> str:
    """Return the text of a passage."""
    heard = sound[_sample(passage.start) : _sample(passage.end)]
    with _one_at_a_time:
        lines = _recognizer().transcribe_without_streaming(heard.tolist(), SAMPLE_RATE).lines
    return " ".join(line.text.strip() for line in lines if line.text.strip())


def passages(spoken: Iterable[Passage], sound: npt.NDArray[np.float32]) -> list[Passage]:
    """Join neighbouring stretches of speech, and cut long ones at the quietest place."""
    end_of_sound = len(sound) / SAMPLE_RATE
    joined: list[Passage] = []
    for start, end in spoken:
        if end - start < SHORTEST_SPEECH:
            continue
        stretch = Passage(max(0.0, start - MARGIN), min(end_of_sound, end + MARGIN))
        if joined and _belong_together(joined[-1], stretch):
            joined[-1] = Passage(joined[-1].start, max(joined[-1].end, stretch.end))
        else:
            # Margins may overlap. Cut here, so that no word is transcribed twice.
            earliest = joined[-1].end if joined else 0.0
            joined.append(Passage(max(stretch.start, earliest), stretch.end))
    return [piece for passage in joined for piece in _cut(passage, sound)]


def _belong_together(before: Passage, after: Passage) -> bool:
    pause, together = after.start - before.end, after.end - before.start
    return pause < LONGEST_PAUSE and together <= LONGEST_PASSAGE


def _cut(passage: Passage, sound: npt.NDArray[np.float32]) -> Iterable[Passage]:
    """Cut a long passage at the quietest place in the second half of each stretch."""
    start, end = passage
    while end - start > LONGEST_PASSAGE:
        begin = start + LONGEST_PASSAGE / 2
        window = sound[_sample(begin) : _sample(start + LONGEST_PASSAGE)]
        loudness = np.convolve(window**2, np.ones(SAMPLE_RATE // 5), mode="valid")
        quietest = begin + (int(loudness.argmin()) + SAMPLE_RATE // 10) / SAMPLE_RATE
        yield Passage(start, quietest)
        start = quietest
    yield Passage(start, end)


def _sample(seconds: float) -> int:
    return round(seconds * SAMPLE_RATE)


@cache
def _recognizer() -> _Transcriber:
    return _load({"vad_threshold": "0"})


def _load(options: dict[str, str]) -> _Transcriber:
    try:
        moonshine = import_module("moonshine_voice")  # import late: it takes 0.3 s
    except (ImportError, OSError) as error:
        raise RecognizerError(f"moonshine-voice cannot be loaded here: {error}") from error
    try:
        transcriber: _Transcriber = moonshine.Transcriber(
            moonshine.get_model_path("tiny-en"), moonshine.ModelArch.TINY, options=options
        )
    except moonshine.MoonshineError as error:
        raise RecognizerError(f"the speech model cannot be loaded: {error}") from error
    return transcriber
