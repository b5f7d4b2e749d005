"""Compression of single values with zstd.

Responsible for: `Zstd` (how), `train` (a dictionary from a sample) and `Compressed`, the codec that
wraps another one.

Rules:
- a compressed value is one frame that says its own size, without magic number, checksum or number
  of its dictionary: all of these are known;
- the size that a frame says bounds what comes out, and is itself bounded by what the frame's bytes
  can stand for: 4 bytes make at most one block of 128 KiB.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy.typing as npt

from splitpipe.codecs.base import Codec
from splitpipe.errors import CorruptRecord, FormatError
from splitpipe.schema import Field

__all__ = ["Compressed", "Zstd", "train"]

# A block of zstd takes 4 bytes at least and stands for 128 KiB at most.
_BLOCK_NBYTES: Final = 128 << 10
# A frame whose first byte is less says a size below 64 KiB, or none, which zstd refuses.
_SMALL_FRAME: Final = 0x80
_LARGEST_DICTIONARY: Final = 112_640


@dataclass(frozen=True, slots=True)
class Zstd:
    """Compression of every value by itself, with zstd.

    Attributes:
        level: how hard it tries, from -7 to 22.
        dictionary: ``True`` trains one from the first values, which makes small values several
            times smaller; bytes are a dictionary that was trained elsewhere.

    Example:
        >>> Zstd(dictionary=True)
        Zstd(level=3, dictionary=True)
    """

    level: int = 3
    dictionary: bool | bytes = False

    def __post_init__(self) -> None:
        if isinstance(self.level, bool) or not -7 <= self.level <= 22:
            raise FormatError(f"a level of zstd is from -7 to 22, not {self.level!r}")


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError as error:
        raise FormatError(
            "compressed columns need the package zstandard: pip install 'splitpipe[zstd]'"
        ) from error
    return zstandard


def train(samples: Sequence[bytes]) -> bytes:
    """A dictionary trained from values, with zstd's own method; empty if they are too few.

    Example:
        >>> train([b"a few values"])
        b''
    """
    zstandard = _zstandard()
    # As large as `zstd --train` makes it, unless the values are few.
    size = min(_LARGEST_DICTIONARY, sum(map(len, samples)) // 4)
    if len(samples) < 16 or size < 256:
        return b""
    try:
        trained: bytes = zstandard.train_dictionary(size, list(samples)).as_bytes()
    except zstandard.ZstdError:
        # Nothing in them comes twice.
        return b""
    return trained


class Compressed:
    """A codec that compresses what another one makes.

    Args:
        inner: the other codec.
        field: the column's type.
        dictionary: of zstd; empty for none.
        level: how hard zstd tries.
    """

    def __init__(self, inner: Codec, field: Field, dictionary: bytes, level: int) -> None:
        self._inner = inner
        self._nbytes = field.nbytes
        self._kind = field.kind
        self._level = level
        self._dictionary = dictionary
        self._zstandard = _zstandard()
        # Neither direction may be used by two threads at once.
        self._own = threading.local()

    def encode(self, value: Any) -> bytes:
        """See `Codec.encode`."""
        return self.pack(self._inner.encode(value))

    def decode(self, data: bytes) -> Any:
        """See `Codec.decode`."""
        return self._inner.decode(self.unpack(data))

    def decode_into(self, records: Sequence[bytes], out: npt.NDArray[Any]) -> None:
        """See `Codec.decode_into`."""
        self._inner.decode_into(list(map(self.unpack, records)), out)

    def quick(self, decoded: Callable[..., Callable[[int], Any]]) -> Callable[[int], Any]:
        """A short way from a row to its value, for single bytes and texts.

        Args:
            decoded: ``ColumnReader.decoded`` of the stored bytes.

        Returns:
            A function that gives the value of a row, or ``None``: take the long way, which knows
            what is wrong, or what a larger frame may stand for.
        """
        value = decoded(self._decompressor, _SMALL_FRAME)

        def text(row: int) -> Any:
            try:
                return str(value(row), "utf-8")
            except Exception:
                return None

        return text if self._kind == "str" else value

    def pack(self, data: bytes) -> bytes:
        """The frame of bytes."""
        try:
            compress = self._own.compress
        except AttributeError:
            compress = self._own.compress = self._compressor()
        packed: bytes = compress(data)
        return packed

    def unpack(self, data: bytes) -> bytes:
        """The bytes of a frame."""
        try:
            decompress = self._own.decompress
        except AttributeError:
            decompress = self._own.decompress = self._decompressor()
        if not data or data[0] >= _SMALL_FRAME:
            self._check_size(data)
        try:
            raw: bytes = decompress(data)
        except self._zstandard.ZstdError as error:
            raise CorruptRecord(f"{len(data)} bytes cannot be decompressed: {error}") from error
        return raw

    def _check_size(self, data: bytes) -> None:
        """Refuse a frame that says more than its bytes can stand for."""
        try:
            found = self._zstandard.get_frame_parameters(
                data, format=self._zstandard.FORMAT_ZSTD1_MAGICLESS
            )
        except self._zstandard.ZstdError as error:
            raise CorruptRecord(f"{len(data)} bytes are no frame of zstd: {error}") from error
        most = (len(data) // 4 + 1) * _BLOCK_NBYTES
        if found.content_size > (most if self._nbytes is None else self._nbytes):
            raise CorruptRecord(
                f"{len(data)} compressed bytes claim to be {found.content_size}: that cannot be"
            )

    def _compressor(self) -> Any:
        zstandard = self._zstandard
        parameters = zstandard.ZstdCompressionParameters.from_level(
            self._level,
            format=zstandard.FORMAT_ZSTD1_MAGICLESS,
            write_content_size=1,
            write_checksum=0,
            write_dict_id=0,
        )
        options = {"dict_data": self._loaded()} if self._dictionary else {}
        return zstandard.ZstdCompressor(compression_params=parameters, **options).compress

    def _decompressor(self) -> Any:
        options = {"dict_data": self._loaded()} if self._dictionary else {}
        return self._zstandard.ZstdDecompressor(
            format=self._zstandard.FORMAT_ZSTD1_MAGICLESS, **options
        ).decompress

    def _loaded(self) -> Any:
        return self._zstandard.ZstdCompressionDict(self._dictionary)
