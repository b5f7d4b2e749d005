"""Decoders of media: from the bytes of a file to what a training step takes.

Responsible for: `image`, `audio`, `video`, `text` and `json`, each a value that is called with the
bytes of a file: it can be pickled, compared and printed, and says which column it makes
(``field``).

Rules:
- the same bytes and options give the same values, wherever a part of a file is begun to be read;
- what a header says is compared with a limit before memory is taken for it;
- every failure is a `CorruptRecord` that says what was being decoded;
- packages are imported when something is decoded: Pillow, soundfile and PyAV, of the extra
  ``media``.

Example:
    >>> import io
    >>> from PIL import Image
    >>> Image.new("RGB", (640, 480), "red").save(file := io.BytesIO(), "JPEG")
    >>> image(size=224)(file.getvalue()).shape
    (224, 224, 3)
"""

from __future__ import annotations

from splitpipe.codecs.media import Audio, Video
from splitpipe.raw.media.frames import VideoDecoder, video
from splitpipe.raw.media.pictures import ImageDecoder, image
from splitpipe.raw.media.sound import AudioDecoder, audio
from splitpipe.raw.media.texts import JsonDecoder, TextDecoder, json, text

__all__ = [
    "Audio",
    "AudioDecoder",
    "ImageDecoder",
    "JsonDecoder",
    "TextDecoder",
    "Video",
    "VideoDecoder",
    "audio",
    "image",
    "json",
    "text",
    "video",
]
