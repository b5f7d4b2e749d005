"""Sound: WAV, FLAC, OGG, MP3, and what else soundfile knows.

Responsible for: `audio` and the `AudioDecoder` that it makes.

Rules:
- how much a file says it holds is compared with a limit before memory is taken for it;
- sound that ends before its header says is an error, never shorter.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from splitpipe.codecs.media import Audio, package
from splitpipe.errors import CorruptRecord, FormatError
from splitpipe.raw.media.common import MOST_NBYTES, decoding
from splitpipe.raw.media.resampling import resampled
from splitpipe.schema import Field

__all__ = ["AudioDecoder", "audio"]


@dataclass(frozen=True, slots=True)
class AudioDecoder:
    """See `audio`, which makes it."""

    rate: int | None
    channels: int | None
    dtype: str
    start_s: float
    duration_s: float | None
    max_nbytes: int

    @property
    def field(self) -> Field:
        """The column that it makes."""
        return Field("audio")

    def __call__(self, data: bytes) -> Audio:
        """The sound of a file's bytes."""
        soundfile = package("audio", "decoding")
        with decoding("sound", data), soundfile.SoundFile(io.BytesIO(data)) as file:
            first = round(self.start_s * file.samplerate)
            left = max(0, file.frames - first)
            count = left
            if self.duration_s is not None:
                count = min(left, round(self.duration_s * file.samplerate))
            if count * file.channels * np.dtype(self.dtype).itemsize > self.max_nbytes:
                raise CorruptRecord(
                    f"{count} frames of {file.channels} channels are more than max_nbytes="
                    f"{self.max_nbytes}"
                )
            if count:
                file.seek(first)
            samples = file.read(count, dtype=self.dtype, always_2d=True)
            rate = file.samplerate
        if len(samples) != count:
            raise CorruptRecord(f"sound of {count} frames ends after {len(samples)}: it was cut")
        samples = _mixed(samples, self.channels)
        if self.rate is not None and self.rate != rate:
            samples, rate = resampled(samples, rate, self.rate), self.rate
        return Audio(samples, rate)


def _mixed(samples: npt.NDArray[Any], channels: int | None) -> npt.NDArray[Any]:
    """Sound with so many channels: their mean as one, one as all."""
    there = samples.shape[1]
    if channels is None or channels == there:
        return samples
    if channels == 1:
        mean = samples.mean(axis=1, keepdims=True)
        one: npt.NDArray[Any] = np.rint(mean) if samples.dtype.kind == "i" else mean
        return one.astype(samples.dtype)
    if there == 1:
        return np.repeat(samples, channels, axis=1)
    raise CorruptRecord(f"sound of {there} channels has no {channels}: only 1 is made of several")


def audio(
    *,
    rate: int | None = None,
    channels: int | None = None,
    dtype: str = "float32",
    start_s: float = 0.0,
    duration_s: float | None = None,
    max_nbytes: int = MOST_NBYTES,
) -> AudioDecoder:
    """Decode sound (WAV, FLAC, OGG, MP3, and what else soundfile knows) as `Audio`.

    Args:
        rate: frames a second of what comes out; as in the file unless given.
        channels: how many; 1 is the mean of those that there are.
        dtype: of the samples: ``"float32"`` or ``"float64"`` from -1 to 1, ``"int16"`` or
            ``"int32"``.
        start_s: where to begin; what comes before is sought past, not decoded, where the file's
            kind allows.
        duration_s: how much of it at most; to the end unless given.
        max_nbytes: more decoded samples are refused.

    Example:
        >>> audio(rate=16000, channels=1)
        AudioDecoder(rate=16000, channels=1, dtype='float32', start_s=0.0, duration_s=None, ...)
    """
    if dtype not in ("float32", "float64", "int16", "int32"):
        raise FormatError(f"dtype= is float32, float64, int16 or int32, not {dtype!r}")
    if rate is not None and dtype.startswith("int"):
        raise FormatError("another rate needs dtype='float32' or 'float64'")
    for name, value in (("rate", rate), ("channels", channels)):
        if value is not None and value < 1:
            raise FormatError(f"{name}= is a number from 1, not {value!r}")
    if start_s < 0 or (duration_s is not None and duration_s <= 0):
        raise FormatError("start_s= is a time from 0, duration_s= one above")
    return AudioDecoder(rate, channels, dtype, float(start_s), duration_s, max_nbytes)
