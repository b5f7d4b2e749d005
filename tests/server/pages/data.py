"""Datasets for the page's tests, made as a user makes them: by the client."""

from __future__ import annotations

import io
import struct
import wave
import zlib
from pathlib import Path
from typing import Any

import numpy as np

import splitpipe as sp
from tests.server.serving import Served

__all__ = ["EVIL", "MODULE", "film", "make", "png", "rows", "wav"]

EVIL = "</td><script>alert('ran')</script><img src=/nothing onerror=\"alert('ran')\">"

MODULE = '''
"""What the tests need."""
from splitpipe.server.modules import collater, filter, preprocessor


@filter
def long_enough(sample, *, least: int = 3, strict: bool = False) -> bool:
    """Texts that are long enough.

    Args:
        least: letters at least.
        strict: one more than that.
    """
    return len(sample["text"]) >= least + strict


@filter
def even(sample) -> bool:
    """Labels that are even."""
    return sample["label"] % 2 == 0


@preprocessor
def shout(batch, *, mark: str = "!"):
    """Texts with a mark behind them."""
    return {**batch, "loud": [text + mark for text in batch["text"]]}
'''


def png(red: int, *, width: int = 16, height: int = 16) -> bytes:
    """A picture of one colour."""
    lines = b"".join(b"\0" + bytes((red, 80, 120)) * width for _ in range(height))
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
            _chunk(b"IDAT", zlib.compress(lines)),
            _chunk(b"IEND", b""),
        ]
    )


def wav(seconds: float = 0.2) -> bytes:
    """A quiet sound."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(b"\0\1" * int(8000 * seconds))
    return file.getvalue()


def film(frames: int = 10) -> bytes:
    """A film of a second or so, as browsers play it."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="webm") as container:
        stream = container.add_stream("libvpx", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
        for number in range(frames):
            picture = np.full((16, 32, 3), 20 * number, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def rows(count: int) -> list[dict[str, Any]]:
    """Records of a little text, a label, a picture and a sound."""
    return [
        {
            "text": EVIL if number == 1 else "word " * (number % 5 + 1),
            "label": number,
            "picture": png(number % 256),
            "sound": wav(),
        }
        for number in range(count)
    ]


def make(served: Served, name: str = "news", *, count: int = 60, token: str | None = None) -> None:
    """Make a dataset with one column set."""
    with sp.connect(served.url, token=token) as client:
        client.datasets.create(name)
        with client.writer(name, "main") as writer:
            writer.write_many(rows(count))


def place_modules(root: Path) -> None:
    """Put a file into the folder of modules; a reload makes it known."""
    (root / "modules" / "mine.py").write_text(MODULE, encoding="utf-8")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
