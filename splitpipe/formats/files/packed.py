"""Whole files that others packed, unpacked into a size that is known beforehand.

Responsible for: `unpack`. Standard library for gzip and bzip2, the extra ``zstd`` for zstd.

Rules:
- no more bytes are made than were announced, however many the packed data would give;
- nothing is allocated for an announcement alone: memory grows with what is really there.
"""

from __future__ import annotations

import bz2
import io
import zlib

from splitpipe.errors import CorruptRecord, FormatError

__all__ = ["unpack"]

_PIECE_NBYTES = 1 << 20


def unpack(data: bytes, algorithm: str, size: int, where: str) -> bytes:
    """Unpack ``data``, which must give exactly ``size`` bytes.

    Args:
        data: what is packed.
        algorithm: ``zstd``, ``gz`` or ``bz2``; a level after a colon is passed over.
        size: how many bytes there must be.
        where: what to call it in errors.

    Raises:
        CorruptRecord: it is damaged, or gives another number of bytes.
        FormatError: the algorithm is not known here, or its library is not installed.

    Example:
        >>> import gzip
        >>> unpack(gzip.compress(b"hello"), "gz:9", 5, "example.gz")
        b'hello'
    """
    name = algorithm.partition(":")[0]
    if name not in _ALGORITHMS:
        raise FormatError(
            f"{where} is packed by {algorithm!r}; zstd, gz and bz2 are unpacked here: unpack it, "
            "or write it anew with one of these"
        )
    try:
        unpacked = _ALGORITHMS[name](data, size + 1)
    except ModuleNotFoundError as error:
        raise FormatError(
            f"{where} is packed by zstd, for which zstandard is needed: pip install "
            "'splitpipe[zstd]'"
        ) from error
    except Exception as error:  # each library has its own; the data is all that can be wrong
        raise CorruptRecord(f"{where} cannot be unpacked ({error}): copy it again") from error
    if len(unpacked) != size:
        raise CorruptRecord(
            f"{where} unpacks to {'more than ' if len(unpacked) > size else ''}"
            f"{min(len(unpacked), size)} bytes, {size} were announced: it was cut or is another"
        )
    return unpacked


def _gunzip(data: bytes, most: int) -> bytes:
    return zlib.decompressobj(wbits=31).decompress(data, most)


def _bunzip2(data: bytes, most: int) -> bytes:
    return bz2.BZ2Decompressor().decompress(data, most)


def _unzstd(data: bytes, most: int) -> bytes:
    import zstandard

    pieces: list[bytes] = []
    left = most
    with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)) as reader:
        while left and (piece := reader.read(min(_PIECE_NBYTES, left))):
            pieces.append(piece)
            left -= len(piece)
    return b"".join(pieces)


_ALGORITHMS = {"gz": _gunzip, "bz2": _bunzip2, "zstd": _unzstd}
