"""Sound at another rate.

Responsible for: `resampled`: band-limited interpolation with a windowed sinc, in numpy alone.

Method: the ideal low-pass at the lower of the two rates' half, cut off by a Kaiser window,
evaluated at the distance of every output frame from its neighbours (Smith, "Digital Audio
Resampling", 2002). With a ratio of whole numbers up / down there are only ``up``
different sets of weights.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["resampled"]

_ZEROS = 24
"""Zero crossings of the sinc on each side."""

_BETA = 10.0
_KEPT = 0.97
"""Share of the band that is kept; the rest is where the filter falls off."""

_BLOCK = 1 << 13


def resampled(samples: npt.NDArray[Any], rate: int, wanted: int) -> npt.NDArray[Any]:
    """Sound of ``rate`` frames a second with ``wanted`` of them.

    Args:
        samples: of shape (frames, channels), floating.
        rate: frames a second.
        wanted: frames a second of the result, which has ``ceil(frames * wanted / rate)``.

    Example:
        >>> tone = np.sin(np.arange(800) * 0.1)[:, None]
        >>> half = resampled(tone, 8000, 4000)
        >>> half.shape, bool(np.abs(half[50:-50, 0] - tone[100:-100:2, 0]).max() < 1e-4)
        ((400, 1), True)
    """
    ratio = Fraction(wanted, rate)
    up, down = ratio.numerator, ratio.denominator
    count = -(-len(samples) * up // down)
    cutoff = _KEPT * min(1.0, float(ratio))
    reach = int(np.ceil(_ZEROS / cutoff))
    padded = np.pad(samples.astype(np.float64), ((reach, reach + 1), (0, 0)))
    offsets = np.arange(-reach + 1, reach + 1)
    result = np.empty((count, samples.shape[1]), dtype=np.float64)
    weights: dict[int, npt.NDArray[np.float64]] = {}
    for phase in range(min(up, count)):
        # Output frames phase, phase + up, ... lie equally far behind an input frame.
        places = np.arange(phase, count, up) * down
        first = places // up
        weight = weights.setdefault(
            phase, _weights(offsets - (int(places[0]) % up) / up, cutoff, reach)
        )
        for start in range(0, len(first), _BLOCK):
            some = first[start : start + _BLOCK]
            near = padded[some[:, None] + offsets[None, :] + reach]
            result[phase + up * start : phase + up * (start + len(some)) : up] = np.einsum(
                "nkc,k->nc", near, weight
            )
    return result.astype(samples.dtype)


def _weights(distances: npt.NDArray[Any], cutoff: float, reach: int) -> npt.NDArray[np.float64]:
    inside = np.clip(1 - (distances / reach) ** 2, 0, None)
    window = np.i0(_BETA * np.sqrt(inside)) / np.i0(_BETA)
    weights = cutoff * np.sinc(cutoff * distances) * window
    scaled: npt.NDArray[np.float64] = weights / weights.sum()
    return scaled
