"""Records inside gzip and zstd files, at random places.

Responsible for: telling a compressed file (`kind_of`), decompressing it front to back while it is
indexed (`Expansion`), and reading at any place of the decompressed data afterwards
(`ExpandedFile`).

Decompressing can begin only where a gzip member or a zstd frame begins. Such places, at least
`SPACING_NBYTES` of decompressed data apart, are noted in the index: pairs of u64, the place in the
file and in the decompressed data; the last pair is the end. What lies between two of them, a
*block*, is decompressed whole to read a record in it, and a few blocks are kept.

Rules:
- a block larger than `LARGEST_BLOCK_NBYTES` would cost that much for every record: gzip then needs
  the library of ``checkpoints``, and without it, as zstd always, the file is refused with what to
  do; while it is indexed, not when it is read;
- output is bounded whatever the input says: by the buffer while indexing, by the noted size of
  the block while reading;
- checksums of members and frames are compared by their libraries.
"""

from __future__ import annotations

import bisect
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from splitpipe.errors import CorruptRecord, FormatError
from splitpipe.formats.files import checkpoints
from splitpipe.formats.files.sources import OpenFile

__all__ = ["BlockCache", "ExpandedFile", "Expansion", "expanded_file", "kind_of"]

SPACING_NBYTES = 1 << 20
LARGEST_BLOCK_NBYTES = 64 << 20
_KEPT_NBYTES = 128 << 20
_KEPT_BLOCKS = 256
_INPUT_NBYTES = 64 << 10
CHECKPOINTS = "gzip with checkpoints"
_GZIP = b"\x1f\x8b\x08"
_ZSTD = b"\x28\xb5\x2f\xfd"
_SKIPPABLE = 0x184D2A50


def kind_of(file: OpenFile) -> str | None:
    """``"gzip"``, ``"zstd"``, or ``None`` for a file that is not compressed; by its first bytes."""
    head = file.read(0, min(4, file.size))
    if head.startswith(_GZIP):
        return "gzip"
    if head == _ZSTD or (len(head) == 4 and _is_skippable(head)):
        return "zstd"
    return None


def _is_skippable(head: bytes) -> bool:
    return int.from_bytes(head, "little") & 0xFFFFFFF0 == _SKIPPABLE


class _Pieces(Protocol):
    """Decompressed data front to back."""

    def __call__(self, file: OpenFile, start: int, largest: int) -> Iterator[tuple[bytes, int]]:
        """Pieces of at most ``largest`` bytes from a member or frame on.

        With each comes where in the file the next member or frame begins, if the piece ends one;
        else -1.
        """


def _gzip_pieces(file: OpenFile, start: int, largest: int) -> Iterator[tuple[bytes, int]]:
    at = start
    while at < file.size:
        unpacker = zlib.decompressobj(31)
        rest = b""
        ended = False
        while not ended:
            if not rest:
                rest = file.read(at, min(_INPUT_NBYTES, file.size - at))
                at += len(rest)
            try:
                piece = unpacker.decompress(rest, largest)
            except zlib.error as error:
                raise CorruptRecord(f"{file.path} is damaged before byte {at}: {error}") from error
            ended = unpacker.eof
            if not rest and not piece and not ended:
                raise CorruptRecord(f"{file.path} ends within a gzip member: it was cut")
            rest = unpacker.unconsumed_tail
            if ended:
                at = _behind_padding(file, at - len(unpacker.unused_data))
            if piece or ended:
                yield piece, at if ended else -1


def _behind_padding(file: OpenFile, at: int) -> int:
    """Where the next member begins: zeros between and after members mean nothing."""
    while at < file.size:
        data = file.read(at, min(_INPUT_NBYTES, file.size - at))
        meant = data.lstrip(b"\0")
        if meant:
            return at + len(data) - len(meant)
        at += len(data)
    return at


class _Slice:
    """A part of a file, as the file object that zstandard reads from."""

    def __init__(self, file: OpenFile, start: int, stop: int) -> None:
        self._file, self._at, self._stop = file, start, stop

    def read(self, nbytes: int = -1) -> bytes:
        """The next bytes, at most so many."""
        left = self._stop - self._at
        data = self._file.read(self._at, left if nbytes < 0 else min(nbytes, left))
        self._at += len(data)
        return data


def _zstd_pieces(file: OpenFile, start: int, largest: int) -> Iterator[tuple[bytes, int]]:
    zstandard = _zstandard(file.path)
    at = start
    while at < file.size:
        stop, meant = _frame_end(file, at)
        if not meant:
            yield b"", stop
            at = stop
            continue
        source = _Slice(file, at, stop)
        try:
            with zstandard.ZstdDecompressor().stream_reader(source, closefd=False) as reader:
                while piece := reader.read(largest):
                    yield piece, -1
        except zstandard.ZstdError as error:
            raise CorruptRecord(
                f"{file.path} is damaged between bytes {at} and {stop}: {error}"
            ) from error
        yield b"", stop
        at = stop


def _zstandard(path: str) -> Any:
    try:
        import zstandard
    except ImportError as error:
        raise FormatError(
            f"{path} is compressed with zstd: `pip install splitpipe[zstd]` to read it in place, "
            "or decompress it with `zstd -d`"
        ) from error
    return zstandard


def _frame_end(file: OpenFile, at: int) -> tuple[int, bool]:
    """Where the frame at ``at`` ends, without decompressing it, and whether it holds data.

    As RFC 8878 says: a header, blocks that begin with their size in three bytes, a checksum.
    """
    head = file.read(at, min(8, file.size - at))
    if len(head) >= 8 and _is_skippable(head[:4]):
        return _within(file, at + 8 + int.from_bytes(head[4:8], "little")), False
    if head[:4] != _ZSTD or len(head) < 6:
        raise CorruptRecord(f"{file.path}: what begins at byte {at} is no zstd frame")
    flags = head[4]
    single = flags >> 5 & 1
    content = (1 if single else 0, 2, 4, 8)[flags >> 6]
    at += 5 + (not single) + (0, 1, 2, 4)[flags & 3] + content
    last = 0
    while not last:
        block = int.from_bytes(file.read(at, 3), "little")
        last, kind, size = block & 1, block >> 1 & 3, block >> 3
        at = _within(file, at + 3 + (1 if kind == 1 else size))
    return _within(file, at + 4 * (flags >> 2 & 1)), True


def _within(file: OpenFile, at: int) -> int:
    if at > file.size:
        raise CorruptRecord(f"{file.path} ends within a zstd frame: it was cut")
    return at


_PIECES: dict[str, _Pieces] = {"gzip": _gzip_pieces, "zstd": _zstd_pieces}
_ADVICE = {
    "gzip": "`pip install splitpipe[gzip]`, or decompress it with `gunzip`, or compress it again "
    "in blocks with `bgzip`",
    "zstd": "decompress it with `zstd -d`, or compress it again in frames with `pzstd`",
}


class Expansion:
    """A compressed file read front to back; notes where decompressing can begin.

    Args:
        kind: as `kind_of` says.
        file: the file.

    Attributes:
        kind: the same, or `CHECKPOINTS` once it is known that it takes them.
    """

    def __init__(self, kind: str, file: OpenFile) -> None:
        self.kind = kind
        self._file = file
        self._pieces = _PIECES[kind](file, 0, _INPUT_NBYTES * 4)
        self._held = b""
        self._points = [(0, 0)]
        # Where a block may end next: the end of the last member or frame that was read.
        self._end = (0, 0)
        self._at = 0

    def read_into(self, buffer: npt.NDArray[np.uint8], offset: int) -> int:
        """Fill a buffer with what comes next; how many bytes there were, 0 at the end.

        Args:
            buffer: of uint8.
            offset: where the reader is: what came before has to be read first.
        """
        assert offset + len(self._held) == self._at
        view = buffer.data
        done = 0
        while done < len(buffer):
            if not self._held and not self._more():
                break
            piece = self._held[: len(buffer) - done]
            view[done : done + len(piece)] = piece
            self._held = self._held[len(piece) :]
            done += len(piece)
        return done

    def _more(self) -> bool:
        for piece, end in self._pieces:
            self._at += len(piece)
            self._held = piece
            if self._block_nbytes > LARGEST_BLOCK_NBYTES and self._end > self._points[-1]:
                # The members before this one are a block of their own.
                self._points.append(self._end)
            if self._block_nbytes > LARGEST_BLOCK_NBYTES and self.kind != CHECKPOINTS:
                if self.kind != "gzip" or not checkpoints.available():
                    raise FormatError(self._refusal())
                self.kind = CHECKPOINTS
            if end >= 0:
                self._end = (end, self._at)
                if self._block_nbytes >= SPACING_NBYTES:
                    self._points.append(self._end)
            if piece:
                return True
        return False

    @property
    def _block_nbytes(self) -> int:
        """How much was read since the last place where decompressing can begin."""
        return self._at - self._points[-1][1]

    def _refusal(self) -> str:
        return (
            f"{self._file.path}: more than {LARGEST_BLOCK_NBYTES >> 20} MiB in one {self.kind} "
            f"stream, which can only be read from its beginning: {_ADVICE[self.kind]}"
        )

    def blob(self) -> bytes:
        """Where decompressing can begin: for `expanded_file`."""
        if self.kind == CHECKPOINTS:
            return self._at.to_bytes(8, "little") + checkpoints.build(self._file)
        points = self._points if self._points[-1] == self._end else [*self._points, self._end]
        return np.array(points, dtype="<u8").tobytes()


class BlockCache:
    """The decompressed blocks that were used last, of all files of a source together."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, int], bytes] = OrderedDict()

    def get(self, path: str, number: int) -> bytes | None:
        """A block, if it is kept."""
        return self._kept.get((path, number))

    def put(self, path: str, number: int, block: bytes) -> None:
        """Keep a block, and forget others."""
        # No lock: of two threads one may forget a block more than it had to.
        self._kept[path, number] = block
        while len(self._kept) > 1 and (
            len(self._kept) > _KEPT_BLOCKS
            or sum(map(len, tuple(self._kept.values()))) > _KEPT_NBYTES
        ):
            try:
                self._kept.popitem(last=False)
            except KeyError:  # another thread was faster
                return


class ExpandedFile:
    """Reads at any place of the decompressed data of a file.

    Args:
        path: of the file.
        bounds: where blocks begin in the decompressed data, and its end.
        expand: the bytes of a block, by its number.
        cache: where blocks are kept.
    """

    def __init__(
        self,
        path: str,
        bounds: npt.NDArray[np.int64],
        expand: Callable[[int], bytes],
        cache: BlockCache,
    ) -> None:
        self._path = path
        self._bounds = bounds.tolist()
        self._expand = expand
        self._cache = cache

    @property
    def size(self) -> int:
        """Bytes of the decompressed data."""
        return int(self._bounds[-1])

    def read(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes of the decompressed data.

        Raises:
            CorruptRecord: there are fewer, or the file is damaged.
        """
        if offset + length > self.size:
            raise CorruptRecord(
                f"{self._path} has {self.size} bytes when decompressed, {offset + length} are "
                "needed: remove its index, it is built again"
            )
        number = bisect.bisect_right(self._bounds, offset) - 1
        parts: list[bytes] = []
        while length > 0:
            within = offset - self._bounds[number]
            part = self._block(number)[within : within + length]
            parts.append(part)
            offset += len(part)
            length -= len(part)
            number += 1
        return b"".join(parts)

    def _block(self, number: int) -> bytes:
        known = self._cache.get(self._path, number)
        if known is None:
            known = self._expand(number)
            size = self._bounds[number + 1] - self._bounds[number]
            if len(known) != size:
                raise CorruptRecord(
                    f"{self._path}: what gave {size} bytes at {self._bounds[number]} of the "
                    f"decompressed data when it was indexed gives {len(known)}: it changed; open "
                    "the dataset again"
                )
            self._cache.put(self._path, number, known)
        return known


def expanded_file(kind: str, file: OpenFile, blob: bytes, cache: BlockCache) -> ExpandedFile:
    """What is inside a compressed file.

    Args:
        kind: of the `Expansion` that indexed it.
        file: the file.
        blob: of the same.
        cache: where its blocks are kept.
    """
    if kind == CHECKPOINTS:
        size = int.from_bytes(blob[:8], "little")
        inside = checkpoints.Checkpoints(file, blob[8:])
        step = checkpoints.SPACING_NBYTES
        bounds = np.append(np.arange(0, size, step, dtype=np.int64), size)

        def expand(number: int) -> bytes:
            return inside.read(int(bounds[number]), int(bounds[number + 1] - bounds[number]))

        return ExpandedFile(file.path, bounds, expand, cache)
    points = np.frombuffer(blob, dtype="<u8").astype(np.int64).reshape(-1, 2)

    def expand_whole(number: int) -> bytes:
        (start, before), (stop, behind) = points[number : number + 2].tolist()
        return _between(kind, file, (start, stop), behind - before)

    return ExpandedFile(file.path, points[:, 1], expand_whole, cache)


def _between(kind: str, file: OpenFile, places: tuple[int, int], size: int) -> bytes:
    """The decompressed data of whole members or frames; a little more where there is more."""
    data = bytearray()
    for piece, end in _PIECES[kind](file, places[0], size + 1):
        data += piece
        if end == places[1] or len(data) > size:
            break
    return bytes(data)
