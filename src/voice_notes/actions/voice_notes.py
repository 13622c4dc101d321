"""Transcription: turn a recording into text."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sidelight import arg, emits
from voice_notes.errors import SilentRecordingError
from voice_notes.speech import find_passages, hear

if TYPE_CHECKING:
    from collections.abc import Callable

    from voice_notes.audio import Recording


@emits(
    start="transcription_started",
    failure="transcription_failed",
    mode="awaited",
    artifact_id=arg.artifact_id,
    seconds=arg.audio.seconds,
)
async def transcribe_audio(
    artifact_id: str,  # noqa: ARG001 - names the work, as in every action
    audio: Recording,
    *,
    on_progress: Callable[[int, int], None] = lambda heard, passages: None,  # noqa: ARG005
) -> str:
    """Transcribe a recording. Raises `SilentRecordingError` if nobody speaks in it."""
    sound = await asyncio.to_thread(audio.sound)
    passages = await asyncio.to_thread(find_passages, sound)
    texts = []
    for heard, passage in enumerate(passages):
        on_progress(heard, len(passages))
        texts.append(await asyncio.to_thread(hear, sound, passage))
    on_progress(len(passages), len(passages))
    text = " ".join(filter(None, texts))
    if not text:
        raise SilentRecordingError(f"nobody is heard speaking in {audio.name}")
    return text
