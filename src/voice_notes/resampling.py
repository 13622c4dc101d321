"""Change the sample rate of a recording with a windowed sinc filter."""

from __future__ import annotations

from math import ceil, gcd
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

#: Zero crossings of the sinc on each side. More make no audible difference to speech.
_CROSSINGS = 16

#: Share of the new Nyquist frequency that passes. The margin prevents aliasing.
_ROLL_OFF = 0.94

#: Number of new samples computed at a time. It bounds the memory.
_BLOCK = 32_768


def resample(sound: npt.NDArray[np.float32], rate: int, new_rate: int) -> npt.NDArray[np.float32]:
    """Return `sound` as if it had been recorded at `new_rate`."""
    if rate == new_rate:
        return sound
    # The new samples fall on `phases` different places between the old ones. There is one row
    # of weights for each place.
    phases, step = new_rate // gcd(rate, new_rate), rate // gcd(rate, new_rate)
    weights = _weights(phases, cutoff=_ROLL_OFF * min(1.0, new_rate / rate))
    reach = weights.shape[1] // 2
    padded = np.pad(sound, (reach, reach))
    windows = np.lib.stride_tricks.sliding_window_view(padded, weights.shape[1])

    length = ceil(len(sound) * new_rate / rate)
    resampled = np.empty(length, np.float32)
    for start in range(0, length, _BLOCK):
        ticks = np.arange(start, min(start + _BLOCK, length), dtype=np.int64) * step
        places = windows[ticks // phases]
        np.einsum(
            "ij,ij->i", places, weights[ticks % phases], out=resampled[start : start + _BLOCK]
        )
    return resampled


def _weights(phases: int, cutoff: float) -> npt.NDArray[np.float32]:
    """Build one low-pass filter for each place between two old samples."""
    reach = ceil(_CROSSINGS / cutoff)
    taps = np.arange(-reach, reach + 1)
    distance = taps[None, :] - (np.arange(phases) / phases)[:, None]
    window = np.cos(np.pi / 2 * np.clip(distance / (reach + 1), -1, 1)) ** 2
    weights = cutoff * np.sinc(cutoff * distance) * window
    weights /= weights.sum(axis=1, keepdims=True)
    single: npt.NDArray[np.float32] = weights.astype(np.float32)
    return single
