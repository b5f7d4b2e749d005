"""Images, sound and video: stored encoded, decoded on demand.

Responsible for: what a media value becomes when it is written (the bytes it came in, or a lossless
file of what is in memory), and when a reader asks for decoding. Each needs a package of its own,
imported when it is first used: Pillow for the extra ``image``, soundfile for ``audio``, PyAV for
``video``.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from splitpipe.errors import CorruptRecord, FormatError

__all__ = ["Audio", "Video", "decoder", "encoded", "package"]

# kind -> what has to be imported, the package that has it, the extra that asks for it
_PACKAGES: Final = {
    "image": ("PIL.Image", "Pillow", "image"),
    "audio": ("soundfile", "soundfile", "audio"),
    "video": ("av", "av", "video"),
}
# Sound is stored as WAV, in the type of its samples: nothing is lost.
_SUBTYPES: Final = {"int16": "PCM_16", "int32": "PCM_32", "float32": "FLOAT", "float64": "DOUBLE"}


class Audio(NamedTuple):
    """Decoded sound.

    Attributes:
        samples: float32 array of shape (frames, channels), from -1 to 1.
        rate: frames a second.
    """

    samples: npt.NDArray[np.float32]
    rate: int


class Video(NamedTuple):
    """Decoded video.

    Attributes:
        frames: uint8 array of shape (frames, height, width, 3), red, green, blue.
        rate: frames a second; 0 when the file does not say.
    """

    frames: npt.NDArray[np.uint8]
    rate: float


def decoder(kind: str) -> Callable[[bytes], Any]:
    """The function that decodes values of a kind of media.

    Returns:
        A function of the encoded bytes: images become ``PIL.Image.Image``, sound `Audio`, video
        `Video`.

    Raises:
        FormatError: the package that decodes them is not installed.
    """
    module = package(kind, "decoding")
    decode = {"image": _image, "audio": _audio, "video": _video}[kind]

    def decoded(data: bytes) -> Any:
        try:
            return decode(module, data)
        except Exception as error:
            # These libraries raise what they like; the value itself passed its checksum.
            raise CorruptRecord(
                f"{len(data)} bytes cannot be decoded as {kind}: {error}; read without decoding "
                "to get them as they were stored"
            ) from error

    return decoded


def encoded(kind: str, value: Any) -> bytes | memoryview:
    """The bytes to store for a value: its own, or a lossless file of an image or sound.

    Raises:
        FormatError: it is neither encoded nor something that can be encoded here.
    """
    if isinstance(value, bytes | memoryview):
        return value
    buffer = io.BytesIO()
    if kind == "image":
        pillow = package(kind, "encoding")
        try:
            picture = value if hasattr(value, "save") else pillow.fromarray(np.asarray(value))
            picture.save(buffer, format="PNG")
        except (TypeError, ValueError, OSError, AttributeError) as error:
            raise FormatError(f"a {type(value).__name__} is no image: {error}") from error
        return buffer.getvalue()
    if kind == "audio" and isinstance(value, tuple) and len(value) == 2:
        try:
            samples = np.asarray(value[0])
            subtype = _SUBTYPES[samples.dtype.name]
            soundfile = package(kind, "encoding")
            soundfile.write(buffer, samples, value[1], format="WAV", subtype=subtype)
        except (TypeError, ValueError, RuntimeError, KeyError) as error:
            raise FormatError(f"this is no sound: {error}") from error
        return buffer.getvalue()
    raise FormatError(
        f"a {kind} is stored as the bytes of its file, not as a {type(value).__name__}"
    )


def package(kind: str, doing: str) -> Any:
    """The module that knows a kind of media.

    Args:
        kind: of media.
        doing: what it is needed for, for the message.

    Raises:
        FormatError: its package is not installed.
    """
    module, name, extra = _PACKAGES[kind]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise FormatError(
            f"{doing} {kind} needs the package {name}: pip install 'splitpipe[{extra}]'"
        ) from error


def _image(pillow: Any, data: bytes) -> Any:
    picture = pillow.open(io.BytesIO(data))
    # Now, not when it is looked at: an error belongs to this record.
    picture.load()
    return picture


def _audio(soundfile: Any, data: bytes) -> Audio:
    samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    return Audio(samples, rate)


def _video(av: Any, data: bytes) -> Video:
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        return Video(np.stack(frames), float(stream.average_rate or 0))
