"""Images: JPEG, PNG, WebP, and what else Pillow knows.

Responsible for: `image` and the `ImageDecoder` that it makes.

Rules:
- the size that a file says is compared with a limit before anything is decoded;
- what was cut off is an error, never grey.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from splitpipe.codecs.media import package
from splitpipe.errors import CorruptRecord, FormatError
from splitpipe.raw.media.common import decoding, size_of
from splitpipe.schema import Field, ndarray

__all__ = ["ImageDecoder", "image"]

_MODES: Final = {"RGB": 3, "RGBA": 4, "L": 0}
_FITS: Final = ("cover", "contain", "stretch")
_MOST_PIXELS: Final = 64_000_000


@dataclass(frozen=True, slots=True)
class ImageDecoder:
    """See `image`, which makes it."""

    size: tuple[int, int] | None
    fit: str
    mode: str
    orient: bool
    draft: bool
    array: bool
    max_pixels: int

    @property
    def field(self) -> Field:
        """The column that it makes."""
        if not self.array:
            return Field("image")
        tail = (_MODES[self.mode],) if _MODES[self.mode] else ()
        free = self.size is None or self.fit == "contain"
        return ndarray("uint8", (*((None, None) if free else self.size or ()), *tail))

    def __call__(self, data: bytes) -> Any:
        """The image of a file's bytes."""
        pillow = package("image", "decoding")
        with decoding("an image", data), pillow.open(io.BytesIO(data)) as opened:
            width, height = opened.size
            if width * height > self.max_pixels:
                raise CorruptRecord(
                    f"an image of {width} x {height} pixels is larger than max_pixels="
                    f"{self.max_pixels}"
                )
            picture = self._placed(pillow, self._loaded(opened))
        return np.asarray(picture) if self.array else picture

    def _loaded(self, opened: Any) -> Any:
        if self.size is not None and self.draft:
            # JPEG can be decoded at a half, a quarter or an eighth: twice the size is enough.
            opened.draft(None, (2 * max(self.size), 2 * max(self.size)))
        opened.load()
        if not self.orient:
            return opened
        from PIL import ImageOps

        return ImageOps.exif_transpose(opened)

    def _placed(self, pillow: Any, picture: Any) -> Any:
        if picture.mode.startswith(("I", "F")) and self.mode != "RGBA":
            # Sixteen bits would be cut off, not scaled, by Pillow.
            picture = pillow.fromarray(_eight_bits(np.asarray(picture)))
        picture = picture.convert(self.mode)
        if self.size is None:
            return picture
        height, width = self.size
        if self.fit == "stretch":
            return picture.resize((width, height), pillow.Resampling.BICUBIC)
        scale = max if self.fit == "cover" else min
        ratio = scale(Fraction(width, picture.width), Fraction(height, picture.height))
        if self.fit == "contain":
            ratio = min(ratio, Fraction(1))
            target = [max(1, round(side * ratio)) for side in picture.size]
            return picture.resize(tuple(target), pillow.Resampling.BICUBIC)
        # What is left of the picture, in its own pixels: cut and scaled at once.
        wide, high = float(width / ratio), float(height / ratio)
        left, top = (picture.width - wide) / 2, (picture.height - high) / 2
        box = (left, top, left + wide, top + high)
        return picture.resize((width, height), pillow.Resampling.BICUBIC, box=box)


def _eight_bits(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    if values.dtype.kind == "f":
        values = (np.clip(values, 0.0, 1.0) * 255).round()
    else:
        values = np.clip(values, 0, 0xFFFF) >> 8
    eight: npt.NDArray[np.uint8] = values.astype(np.uint8)
    return eight


def image(
    size: int | tuple[int, int] | None = None,
    *,
    fit: str = "cover",
    mode: str = "RGB",
    orient: bool = True,
    draft: bool = True,
    array: bool = True,
    max_pixels: int = _MOST_PIXELS,
) -> ImageDecoder:
    """Decode images (JPEG, PNG, WebP, and what else Pillow knows), by default as arrays.

    Args:
        size: height and width of what comes out, or one number for both; as in the file if not
            given.
        fit: ``"cover"`` fills the size and cuts off what is beyond, at the middle; ``"contain"``
            makes the image no larger than the size, and keeps all of it (so that sizes differ);
            ``"stretch"`` does not keep proportions.
        mode: ``"RGB"``, ``"RGBA"`` or ``"L"`` (grey).
        orient: turn it as the camera noted (EXIF).
        draft: let JPEG be decoded at a smaller scale, of at least twice the size: much faster, and
            nearly the same.
        array: give a uint8 array of shape (height, width, channels), grey without the last; else a
            ``PIL.Image.Image``.
        max_pixels: larger images are refused before they are decoded. (Pillow itself has a limit of
            89 million.)

    Example:
        >>> image(size=224)
        ImageDecoder(size=(224, 224), fit='cover', mode='RGB', orient=True, draft=True, ...)
        >>> image(size=(32, 64), mode="L").field
        Field('ndarray', 'uint8', (32, 64))
    """
    both = size_of(size)
    if fit not in _FITS:
        raise FormatError(f"fit= is one of {', '.join(_FITS)}, not {fit!r}")
    if mode not in _MODES:
        raise FormatError(f"mode= is one of {', '.join(_MODES)}, not {mode!r}")
    return ImageDecoder(both, fit, mode, orient, draft, array, max_pixels)
