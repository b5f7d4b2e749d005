"""What bytes are: images, sound and video that a browser shows.

Responsible for: `sniffed`, which tells the type of bytes from their beginning.

Rules:
- the bytes decide, never a name or a declared type;
- only types that a browser shows and that run nothing are told; all else is plain bytes, also text
  and pictures that are documents (SVG, HTML, PDF).
"""

from __future__ import annotations

from typing import Final

__all__ = ["PLAIN", "sniffed"]

PLAIN: Final = "application/octet-stream"
NEEDED: Final = 512
"""How many bytes of the beginning are enough."""

# First bytes, where they stand, and what they are of.
_MAGIC: Final = (
    (b"\x89PNG\r\n\x1a\n", 0, "image/png"),
    (b"\xff\xd8\xff", 0, "image/jpeg"),
    (b"GIF87a", 0, "image/gif"),
    (b"GIF89a", 0, "image/gif"),
    (b"fLaC", 0, "audio/flac"),
    (b"ID3", 0, "audio/mpeg"),
)
_RIFF: Final = {b"WEBP": "image/webp", b"WAVE": "audio/wav"}
_BRANDS: Final = {
    b"avif": "image/avif",
    b"avis": "image/avif",
    b"M4A ": "audio/mp4",
    b"M4B ": "audio/mp4",
    b"isom": "video/mp4",
    b"iso2": "video/mp4",
    b"iso4": "video/mp4",
    b"iso5": "video/mp4",
    b"iso6": "video/mp4",
    b"mp41": "video/mp4",
    b"mp42": "video/mp4",
    b"avc1": "video/mp4",
    b"M4V ": "video/mp4",
    b"dash": "video/mp4",
}
_BITMAP_HEADERS: Final = (12, 40, 52, 56, 64, 108, 124)


def sniffed(data: bytes) -> str:
    """The type of bytes, as a MIME type.

    Args:
        data: at least the first `NEEDED` bytes, or all of them.

    Example:
        >>> sniffed(b"GIF89a..."), sniffed(b"<svg onload=alert(1)>"), sniffed(b"")
        ('image/gif', 'application/octet-stream', 'application/octet-stream')
    """
    for magic, at, mime in _MAGIC:
        if data[at : at + len(magic)] == magic:
            return mime
    if data[:4] == b"RIFF":
        return _RIFF.get(data[8:12], PLAIN)
    if data[4:8] == b"ftyp":
        return _BRANDS.get(data[8:12], PLAIN)
    if data[:4] == b"OggS":
        return "video/ogg" if b"\x80theora" in data[:NEEDED] else "audio/ogg"
    if data[:4] == b"\x1aE\xdf\xa3":
        return "video/webm" if b"webm" in data[:NEEDED] else PLAIN
    if data[:2] == b"BM" and int.from_bytes(data[14:18], "little") in _BITMAP_HEADERS:
        return "image/bmp"
    return "audio/mpeg" if _is_mpeg_audio(data) else PLAIN


def _is_mpeg_audio(data: bytes) -> bool:
    """Whether a frame of MPEG audio, layer III, begins here."""
    if len(data) < 4 or data[0] != 0xFF or data[1] & 0xE6 != 0xE2:
        return False
    version, rate, frequency = data[1] >> 3 & 3, data[2] >> 4, data[2] >> 2 & 3
    return version != 1 and rate not in (0, 15) and frequency != 3
