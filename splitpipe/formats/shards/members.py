"""The members of a tar file: which name lies where.

Responsible for: walking the headers of one archive (ustar, GNU long names, pax) over its mapped
bytes and telling every regular file's name, offset and size. Used by the tar shards of others:
WebDataset's and synthefy's.

Rules:
- every size is compared with the file before anything is made of it, each header with its sum;
- nothing is passed over in silence: directories and end markers are no members, anything else that
  is not a regular file (links, devices, sparse files) is refused by name;
- a file that ends where a header should begin was cut, unless the caller knows better.

The standard library's reader is not used: it allocates what a header asks for, takes half a header
at the end for the end, and needs 20 µs a member where this needs 4.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from splitpipe.errors import FormatError
from splitpipe.formats.files.sources import OpenFile

__all__ = ["Archive", "FileBytes", "Member", "members"]

BLOCK = 512
# Longer names and more pax records than this are no names.
_EXTRA_NBYTES_LIMIT = 1 << 20
# How far bytes after the end marker are looked at: tar pads an archive with zeros.
_PADDING_LOOKED_AT = 1 << 16

_OLD_REGULAR = (b"0", b"\0")  # a name that ends in a slash makes them directories
_REGULAR = (*_OLD_REGULAR, b"7")
# Of the next member; of all members; the target of a link; the volume.
_EXTENSIONS = (b"x", b"X", b"L", b"g", b"K", b"V")
_NOTHING = bytes(BLOCK)
_REFUSED = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"6": "a pipe",
    b"S": "a sparse file",
    b"M": "the continuation of a file on another volume",
}
_COMPRESSED = (
    (b"\x1f\x8b", "gzip", "gunzip"),
    (b"\x28\xb5\x2f\xfd", "zstd", "unzstd"),
    (b"BZh", "bzip2", "bunzip2"),
    (b"\xfd7zXZ\x00", "xz", "unxz"),
)


class Member(NamedTuple):
    """One regular file in an archive.

    Attributes:
        name: with its directories.
        header: where its first header begins.
        offset: of its first byte in the archive.
        size: in bytes.
    """

    name: str
    header: int
    offset: int
    size: int

    @property
    def end(self) -> int:
        """Where the next header begins."""
        return self.offset + -(-self.size // BLOCK) * BLOCK


class Archive(Protocol):
    """The bytes of an archive, or a stretch of one."""

    def __len__(self) -> int:
        """How many there are."""

    def __getitem__(self, place: slice) -> bytes:
        """Some of them; fewer where they end."""


class FileBytes:
    """The bytes of an open file, a few kilobytes read at a time. For one thread.

    Args:
        file: it.
        start: where to begin to count.
        stop: where they end; ``None`` is the end of the file.
        ahead: how many bytes to read at least.
    """

    __slots__ = ("_ahead", "_file", "_held", "_held_at", "_start", "_stop")

    def __init__(
        self, file: OpenFile, start: int = 0, stop: int | None = None, *, ahead: int = 8192
    ) -> None:
        self._file = file
        self._start = start
        self._stop = file.size if stop is None else min(stop, file.size)
        self._ahead = ahead
        self._held = b""
        self._held_at = start

    def __len__(self) -> int:
        return max(0, self._stop - self._start)

    def __getitem__(self, place: slice) -> bytes:
        first, last, _ = place.indices(len(self))
        first, last = first + self._start, last + self._start
        if not self._held_at <= first <= last <= self._held_at + len(self._held):
            until = max(last, min(first + self._ahead, self._stop))
            self._held_at, self._held = first, self._file.read(first, until - first)
        return self._held[first - self._held_at : last - self._held_at]


def members(data: Archive, path: str, *, must_end: bool = True) -> Iterator[Member]:
    """The regular files of an archive, in their order.

    Args:
        data: the whole archive, or whole members of it.
        path: what to call it in errors.
        must_end: whether an archive without an end marker is refused as cut. A writer that
            appends, and looks its members up in a catalog, may leave none.

    Raises:
        FormatError: it is no tar file, is compressed, was cut, or holds what is not supported.

    Example:
        >>> import io, tarfile
        >>> file = io.BytesIO()
        >>> with tarfile.open(fileobj=file, mode="w") as archive:
        ...     info = tarfile.TarInfo("a/0001.txt")
        ...     info.size = 5
        ...     archive.addfile(info, io.BytesIO(b"hello"))
        >>> list(members(file.getvalue(), "example.tar"))
        [Member(name='a/0001.txt', header=0, offset=512, size=5)]
    """
    _refuse_compressed(data[:8], path)
    at = first = 0
    ahead = _Ahead()
    while (header := _header(data, at, path, must_end=must_end)) is not None:
        kind, size = _checked(header, at, path)
        body = at + BLOCK
        size = ahead.size(size) if kind in _REGULAR else size
        if size > len(data) - body:
            raise FormatError(
                f"{path}: the member at byte {at} says {size} bytes, {len(data) - body} follow: "
                "the file was cut or is damaged; copy it again"
            )
        at = body + -(-size // BLOCK) * BLOCK
        if kind in _EXTENSIONS:
            ahead.note(kind, _extra(data, body, size, path), path)
            continue
        name = ahead.name(header)
        if kind in _REGULAR and not name.endswith("/"):
            yield Member(name, first, body, size)
        elif kind not in (b"5", *_OLD_REGULAR):
            raise _unreadable(kind, name, path)
        first, ahead = at, _Ahead()
    if ahead.noted:
        raise FormatError(
            f"{path} ends after the name of a member that does not follow: it was cut"
        )


def _unreadable(kind: bytes, name: str, path: str) -> FormatError:
    what = _REFUSED.get(kind, f"of the unknown kind {kind!r}")
    return FormatError(
        f"{path}: member {name!r} is {what}, which is not read in place; pack the archive anew "
        "from regular files (GNU tar: --dereference --hard-dereference)"
    )


def _header(data: Archive, at: int, path: str, *, must_end: bool) -> bytes | None:
    """The block of a header, or ``None`` at the end of the archive."""
    header = data[at : at + BLOCK]
    if header == _NOTHING:
        _check_padding(data, at, path)
        return None
    if len(header) == BLOCK:
        return header
    if must_end or header:
        raise FormatError(
            f"{path} ends at byte {len(data)} without the mark that ends an archive: it was cut, "
            "or is still being written; copy it again"
        )
    return None


@dataclass(slots=True)
class _Ahead:
    """What extension headers say of the member that follows them."""

    long_name: str | None = None
    records: dict[str, str] = field(default_factory=dict)

    @property
    def noted(self) -> bool:
        return self.long_name is not None or bool(self.records)

    def size(self, said: int) -> int:
        return int(self.records.get("size", said))

    def name(self, header: bytes) -> str:
        return self.records.get("path") or self.long_name or _name(header)

    def note(self, kind: bytes, data: bytes, path: str) -> None:
        if kind in b"xX":
            self.records = _pax(data, path)
        elif kind == b"L":
            self.long_name = _text(data)
        elif kind == b"g":
            _refuse_global(_pax(data, path), path)


def _refuse_compressed(start: bytes, path: str) -> None:
    for magic, what, tool in _COMPRESSED:
        if start.startswith(magic):
            raise FormatError(
                f"{path} is compressed ({what}): a compressed archive cannot be read at random; "
                f"unpack it with `{tool}` and open the .tar file"
            )


def _check_padding(data: Archive, at: int, path: str) -> None:
    """After the end marker come zeros; anything else is another archive or damage."""
    rest = data[at : at + _PADDING_LOOKED_AT]
    if rest.count(0) != len(rest):
        raise FormatError(
            f"{path}: bytes follow the end of the archive at byte {at}: two archives in one file, "
            "or damage; join archives with `tar --concatenate`"
        )


def _checked(header: bytes, at: int, path: str) -> tuple[bytes, int]:
    """Kind and size of the member a header is of, after its checksum."""
    said = _number(header[148:156])
    # Some old tars added signed bytes.
    total = sum(header) - sum(header[148:156]) + 8 * 32
    if said != total and said != total - 256 * sum(byte > 127 for byte in _without_sum(header)):
        raise FormatError(
            f"{path} has no tar header at byte {at}: "
            + ("it is no tar file" if at == 0 else "it is damaged there; copy it again")
        )
    size = _number(header[124:136])
    if size is None:
        raise FormatError(f"{path}: the header at byte {at} has no size; copy the file again")
    kind = header[156:157]
    # A directory's or link's size says nothing about bytes that follow.
    return kind, 0 if kind in b"123456" else size


def _without_sum(header: bytes) -> bytes:
    return header[:148] + header[156:]


def _number(stored: bytes) -> int | None:
    """A number of a header: octal digits, or base 256 where the first bit says so."""
    if stored[0] & 0x80:
        return int.from_bytes(stored[1:], "big") if stored[0] == 0x80 else None
    digits = stored.split(b"\0", 1)[0].strip()
    if not digits:
        return 0
    try:
        return int(digits, 8)
    except ValueError:
        return None


def _extra(data: Archive, offset: int, size: int, path: str) -> bytes:
    if size > _EXTRA_NBYTES_LIMIT:
        raise FormatError(
            f"{path}: {size} bytes of names and attributes at byte {offset}; the file is damaged"
        )
    return data[offset : offset + size]


def _pax(data: bytes, path: str) -> dict[str, str]:
    """The records of a pax header: ``length key=value`` and a newline each."""
    found: dict[str, str] = {}
    at = 0
    while at < len(data) and data[at]:
        digits, space, _ = data[at : at + 10].partition(b" ")
        length = int(digits) if space and digits.isdigit() else 0
        record = data[at : at + length]
        key, equals, value = record[len(digits) + 1 : -1].partition(b"=")
        if len(record) != length or not equals or record[-1:] != b"\n":
            raise FormatError(f"{path}: a pax header is damaged; copy the file again")
        found[_text(key)] = _text(value)
        at += length
    for name in found:
        if name.startswith("GNU.sparse"):
            raise FormatError(
                f"{path}: a sparse file is not read in place; pack it without `tar --sparse`"
            )
    if "size" in found and not (found["size"].isascii() and found["size"].isdigit()):
        raise FormatError(f"{path}: a pax header has no size: {found['size']!r:.100}")
    if len(found.get("size", "")) > 19:
        raise FormatError(f"{path}: a pax header says {found['size']:.100} bytes")
    return found


def _refuse_global(found: dict[str, str], path: str) -> None:
    for name in ("path", "size"):
        if name in found:
            raise FormatError(f"{path}: a pax header gives all members the same {name}")


def _name(header: bytes) -> str:
    name = _text(header[:100])
    if header[257:263] == b"ustar\0":  # GNU's own kind has other things in the prefix
        prefix = _text(header[345:500])
        if prefix:
            return f"{prefix}/{name}"
    return name


def _text(stored: bytes) -> str:
    return stored.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
