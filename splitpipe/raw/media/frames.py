"""Frames of video: MP4, WebM, and what else FFmpeg knows.

Responsible for: `video` and the `VideoDecoder` that it makes.

Rules:
- the frame at a time is the one that is shown then, however it was come by: sought, or decoded up
  to;
- how many frames there will be is compared with a limit before they are kept.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from splitpipe.codecs.media import Video, package
from splitpipe.errors import CorruptRecord, FormatError
from splitpipe.raw.media.common import MOST_NBYTES, decoding, size_of
from splitpipe.schema import Field

__all__ = ["VideoDecoder", "video"]

_NEAR_S: Final = 1.0
"""Frames this far ahead are decoded up to, not sought."""


@dataclass(frozen=True, slots=True)
class VideoDecoder:
    """See `video`, which makes it."""

    frames: int | None
    fps: float | None
    start_s: float
    stop_s: float | None
    size: tuple[int, int] | None
    max_nbytes: int

    @property
    def field(self) -> Field:
        """The column that it makes."""
        return Field("video")

    def __call__(self, data: bytes) -> Video:
        """The frames of a file's bytes."""
        av = package("video", "decoding")
        with decoding("video", data), av.open(io.BytesIO(data)) as container:
            if not container.streams.video:
                raise CorruptRecord("there is no video in it")
            stream = container.streams.video[0]
            rate = float(stream.average_rate or 0)
            if self.frames is None and self.fps is None:
                found = list(self._all(container, stream))
            else:
                times, rate = self._times(container, stream, rate)
                found = self._at(container, stream, times)
            if not found:
                raise CorruptRecord("there are no frames in it, or none in this part of it")
            return Video(np.stack(found), rate)

    def _times(self, container: Any, stream: Any, rate: float) -> tuple[list[float], float]:
        """When the frames are wanted, in seconds from the first one, and how many a second."""
        stop = self.stop_s
        length = _length_s(container, stream, rate)
        if stop is None or (length is not None and stop > length):
            stop = length
        if stop is None:
            raise CorruptRecord("the file does not say how long it is: give stop_s=")
        span = stop - self.start_s
        if span <= 0:
            raise CorruptRecord(f"it ends at {stop:g} s, before start_s={self.start_s:g}")
        if self.fps is not None:
            count = max(1, int(span * self.fps + 1e-9))
            if self.frames is not None:
                count = min(count, self.frames)
            return [self.start_s + number / self.fps for number in range(count)], self.fps
        assert self.frames is not None
        # The middles of so many equal parts.
        step = span / self.frames
        times = [self.start_s + step * (number + 0.5) for number in range(self.frames)]
        return times, self.frames / span

    def _at(self, container: Any, stream: Any, times: list[float]) -> list[npt.NDArray[np.uint8]]:
        """The frames that are shown at some times, ascending."""
        self._check(len(times), stream)
        first = (stream.start_time or 0) * stream.time_base
        shown: list[npt.NDArray[np.uint8]] = []
        frames: Iterator[Any] = iter(())
        current = following = None
        for time in times:
            if current is None or time - current.time + float(first) > _NEAR_S:
                place = int((time + float(first)) / stream.time_base)
                container.seek(place, stream=stream, backward=True)
                frames = container.decode(stream)
                current, following = None, next(frames, None)
            while following is not None and (
                current is None or following.time - float(first) <= time + 1e-6
            ):
                current, following = following, next(frames, None)
            if current is not None:
                shown.append(self._array(current))
        return shown

    def _all(self, container: Any, stream: Any) -> Iterator[npt.NDArray[np.uint8]]:
        """All frames from `start_s` to `stop_s`."""
        first = (stream.start_time or 0) * stream.time_base
        if self.start_s:
            place = int((self.start_s + float(first)) / stream.time_base)
            container.seek(place, stream=stream, backward=True)
        count = 0
        for frame in container.decode(stream):
            time = (frame.time or 0.0) - float(first)
            if self.stop_s is not None and time >= self.stop_s - 1e-6:
                return
            if time >= self.start_s - 1e-6:
                count += 1
                self._check(count, stream)
                yield self._array(frame)

    def _array(self, frame: Any) -> npt.NDArray[np.uint8]:
        more = {} if self.size is None else {"height": self.size[0], "width": self.size[1]}
        array: npt.NDArray[np.uint8] = frame.to_ndarray(format="rgb24", **more)
        return array

    def _check(self, count: int, stream: Any) -> None:
        height, width = self.size or (stream.height, stream.width)
        if count * height * width * 3 > self.max_nbytes:
            raise CorruptRecord(
                f"{count} frames of {width} x {height} pixels are more than max_nbytes="
                f"{self.max_nbytes}: take fewer with frames=, fps= or stop_s=, or smaller ones"
            )


def _length_s(container: Any, stream: Any, rate: float) -> float | None:
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    if container.duration:
        return float(container.duration) / 1_000_000
    return stream.frames / rate if stream.frames and rate else None


def video(
    *,
    frames: int | None = None,
    fps: float | None = None,
    start_s: float = 0.0,
    stop_s: float | None = None,
    size: int | tuple[int, int] | None = None,
    max_nbytes: int = MOST_NBYTES,
) -> VideoDecoder:
    """Decode frames of video (MP4, WebM, and what else FFmpeg knows) as `Video`.

    A frame is the one that is shown at a time: the last that begins no later. Only what lies
    between such times and the key frames before them is decoded.

    Args:
        frames: so many, evenly spread (with ``fps``: at most so many); all of them unless said.
        fps: so many a second, from ``start_s`` on.
        start_s: where to begin, in seconds from the first frame.
        stop_s: where to end; at the end unless given.
        size: height and width of a frame, or one number for both; proportions are not kept.
        max_nbytes: more decoded frames are refused.

    Example:
        >>> video(frames=8, size=(112, 112))
        VideoDecoder(frames=8, fps=None, start_s=0.0, stop_s=None, size=(112, 112), ...)
    """
    both = size_of(size)
    if (frames is not None and frames < 1) or (fps is not None and fps <= 0):
        raise FormatError("frames= and fps= are numbers above 0")
    if start_s < 0 or (stop_s is not None and stop_s <= start_s):
        raise FormatError("start_s= is a time from 0, stop_s= a later one")
    return VideoDecoder(frames, fps, float(start_s), stop_s, both, max_nbytes)
