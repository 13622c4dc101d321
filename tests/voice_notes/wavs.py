"""WAV files written byte by byte, so that they can be wrong in every way."""

import struct
import wave
from pathlib import Path

import numpy as np

import voice_notes
from voice_notes.resampling import resample

SHIPPED = Path(voice_notes.__file__).parent / "recordings" / "northwind.wav"


def shipped_sound(seconds: float | None = None) -> np.ndarray:
    """The shipped recording as floats, or the beginning of it."""
    with wave.open(str(SHIPPED)) as file:
        assert file.getframerate() == 16_000
        assert file.getnchannels() == 1
        sound = np.frombuffer(file.readframes(file.getnframes()), "<i2") / np.float32(2**15)
    return sound if seconds is None else sound[: int(seconds * 16_000)]


def chunk(name: bytes, body: bytes, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return name + struct.pack("<I", size) + body + b"\0" * (len(body) % 2)


def encode(channels: np.ndarray, bits: int, *, is_float: bool = False) -> bytes:
    """Samples from -1 to 1, (frames, channels), as the bytes of a data chunk."""
    if is_float:
        return channels.astype(f"<f{bits // 8}").tobytes()
    top = 2 ** (bits - 1)
    numbers = np.clip(np.round(channels.astype(np.float64) * top), -top, top - 1).astype("<i4")
    if bits == 8:
        return (numbers + 128).astype(np.uint8).tobytes()
    return numbers.reshape(-1, 1).view(np.uint8)[:, : bits // 8].tobytes()


def form(rate, channels, bits, *, tag=1, extensible=False) -> bytes:
    block = channels * bits // 8
    plain = struct.pack(
        "<HHIIHH", 0xFFFE if extensible else tag, channels, rate, rate * block, block, bits
    )
    if not extensible:
        return chunk(b"fmt ", plain)
    guid_tail = bytes.fromhex("000000001000800000aa00389b71")
    mask = struct.pack("<HHIH", 22, bits, 0, tag)
    return chunk(b"fmt ", plain + mask + guid_tail)


def riff(*chunks: bytes, length: int | None = None) -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body) if length is None else length) + body


def wav(
    sound: np.ndarray,
    *,
    rate: int = 16_000,
    channels: int = 1,
    bits: int = 16,
    is_float: bool = False,
    extensible: bool = False,
) -> bytes:
    """The sound, which is at 16 kHz, as a WAV file of the given kind."""
    same = np.repeat(resample(sound, 16_000, rate)[:, None], channels, axis=1)
    return riff(
        form(rate, channels, bits, tag=3 if is_float else 1, extensible=extensible),
        chunk(b"LIST", b"INFOISFT\x05\0\0\0test\0\0"),
        chunk(b"data", encode(same, bits, is_float=is_float)),
    )
