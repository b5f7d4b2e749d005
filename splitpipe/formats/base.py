"""What a foreign format is, and what it may look at before it says that data is its own.

Responsible for: `Source` (the place of foreign data, and a cheap look at it), `Format` (how a
format recognises a source and opens it), `Indexing` (how an index may be built). Which formats
there are stands in ``recognise``; what a record is, in each format's module.

Rules:
- a source is never written to, and a look at it costs a bounded number of names and bytes;
- folders are listed recursively, in natural order (``part2`` before ``part10``); names that begin
  with a dot are left out, also folders', and links to folders are not followed;
- a format's module imports nothing heavy before `Format.open` is called.
"""

from __future__ import annotations

import errno
import inspect
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from splitpipe.errors import FormatError, StorageError
from splitpipe.storage import files

if TYPE_CHECKING:
    from splitpipe.storage.base import Records

__all__ = ["Format", "Indexing", "PathLike", "Progress", "Source", "natural_key", "suffix_of"]

PathLike = str | os.PathLike[str]

# Told how many bytes of how many are done, from the thread that asked for the index.
Progress = Callable[[int, int], None]

_GLANCE_NAMES = 1000
_GLANCE_BYTES = 4096
_COMPRESSED = (".gz", ".bgz", ".zst", ".zstd")
_DIGITS = re.compile(r"([0-9]+)")


def natural_key(path: str) -> tuple[object, ...]:
    """Sorts names as people number them, folder by folder.

    Example:
        >>> sorted(["b/x10", "b/x9", "a/x11", "B/x1"], key=natural_key)
        ['a/x11', 'B/x1', 'b/x9', 'b/x10']
    """
    parts = [
        # Text and numbers alternate in every split, so that like is compared with like.
        tuple(
            int(piece) if number % 2 else piece.casefold()
            for number, piece in enumerate(_DIGITS.split(part))
        )
        for part in path.split(os.sep)
    ]
    return (parts, path)


def suffix_of(path: str) -> str:
    """The suffix of a name in lower case, below that of a compression.

    Example:
        >>> suffix_of("a/train.JSONL"), suffix_of("train.jsonl.gz"), suffix_of("README")
        ('.jsonl', '.jsonl', '')
    """
    stem, suffix = os.path.splitext(path.lower())
    return os.path.splitext(stem)[1] if suffix in _COMPRESSED else suffix


@dataclass(frozen=True, slots=True)
class Source:
    """Where foreign data lies: one folder, one file, or a list of files.

    Attributes:
        paths: absolute paths, as given; a single one if it is a folder.
        folder: whether it is a folder.
    """

    paths: tuple[str, ...]
    folder: bool
    # What `glance` found, for the formats that ask one after the other.
    _glance: list[tuple[str, ...]] = field(default_factory=list, compare=False, repr=False)

    @classmethod
    def at(cls, path: PathLike | Sequence[PathLike]) -> Source:
        """The source at a path, or of a list of files.

        Raises:
            StorageError: one of them is not there, or cannot be looked at.
            FormatError: the list is empty or names a folder, or a path is neither file nor folder.
        """
        several = not isinstance(path, str | os.PathLike)
        given = [path] if isinstance(path, str | os.PathLike) else list(path)
        if not given:
            raise FormatError("an empty list of files is no dataset: name at least one file")
        paths = tuple(os.path.abspath(os.fspath(one)) for one in given)
        folder = False
        for one in paths:
            mode = _mode(one)
            if stat.S_ISDIR(mode) and not several:
                folder = True
            elif stat.S_ISDIR(mode):
                raise FormatError(
                    f"{one} is a folder in a list of files: name its files, or open it by itself"
                )
            elif not stat.S_ISREG(mode):
                raise FormatError(
                    f"{one} is neither a file nor a folder: records are read at random places of "
                    "a file; copy what a pipe or device gives into one"
                )
        return cls(paths, folder)

    @property
    def root(self) -> str:
        """The folder, or the folder of the file, or what is common to all files."""
        if self.folder:
            return self.paths[0]
        return os.path.commonpath([os.path.dirname(path) for path in self.paths])

    def relative(self, path: str) -> str:
        """A path as it is seen from `root`."""
        return os.path.relpath(path, self.root)

    def glance(self) -> tuple[str, ...]:
        """Absolute paths of the files, at most a thousand: enough to recognise a format."""
        if not self._glance:
            found: list[str] = []
            for path in self._walk():
                found.append(path)
                if len(found) == _GLANCE_NAMES:
                    break
            self._glance.append(tuple(found))
        return self._glance[0]

    def files(self, *suffixes: str) -> list[str]:
        """Absolute paths of all files with one of these suffixes; of a list, all files, as given.

        Suffixes are as `suffix_of` tells them; without any, every file of a folder counts.
        """
        if not self.folder:
            return list(self.paths)
        found = [path for path in self._walk() if not suffixes or suffix_of(path) in suffixes]
        return sorted(found, key=natural_key)

    def has(self, name: str) -> bool:
        """Whether the folder has a file of this relative name."""
        return self.folder and os.path.isfile(os.path.join(self.root, name))

    def head(self, path: str, nbytes: int = _GLANCE_BYTES) -> bytes:
        """The first bytes of a file; fewer where it is shorter."""
        return files.read_whole(path, limit=nbytes)

    def suffixes(self) -> set[str]:
        """The suffixes of the files that a glance shows."""
        return {suffix_of(path) for path in self.glance()}

    def _walk(self) -> Iterator[str]:
        if not self.folder:
            yield from self.paths
            return
        with files.translated("list the folder", self.root):
            for folder, names, members in os.walk(self.root, onerror=_raise):
                names[:] = sorted((n for n in names if n[0] != "."), key=natural_key)
                for name in sorted(members, key=natural_key):
                    if name[0] != ".":
                        yield os.path.join(folder, name)


def _mode(path: str) -> int:
    try:
        return os.stat(path).st_mode
    except FileNotFoundError as error:
        raise StorageError(errno.ENOENT, "there is no such dataset", path) from error
    except (OSError, ValueError) as error:
        number = getattr(error, "errno", None) or errno.EINVAL
        raise StorageError(number, f"cannot look at it: {error}", path) from error


def _raise(error: OSError) -> None:
    raise error


@dataclass(frozen=True, slots=True)
class Indexing:
    """How an index may be built.

    Attributes:
        index_dir: where indices are kept; ``None`` is a folder ``.splitpipe`` beside the data.
        progress: is told how far it is.
        workers: how many processors to use; ``None`` is as many as this process may.
    """

    index_dir: str | None = None
    progress: Progress | None = None
    workers: int | None = None

    @property
    def processors(self) -> int:
        """`workers`, or as many processors as this process may use."""
        if self.workers is not None:
            return max(1, self.workers)
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class Format:
    """One format: a value of this in its module, and a line in ``recognise``.

    Attributes:
        name: what ``format=`` takes.
        looks_like: what it recognises, in a few words, for error messages.
        recognises: whether a source is of this format, from a glance.
        open: ``open(source, indexing, **options)``: its records; builds the index where one is
            needed.
        marked: whether what it recognises is unmistakable: a layout with a file of its own that
            says so. It then goes before formats that know their files by the suffix alone, of
            which the layout may be made.
        options: names of the options, if not the keyword-only parameters of `open`.
    """

    name: str
    looks_like: str
    recognises: Callable[[Source], bool]
    open: Callable[..., Records]
    marked: bool = False
    options: tuple[str, ...] | None = None

    def takes(self) -> tuple[str, ...]:
        """Names of the format's options."""
        if self.options is not None:
            return self.options
        parameters = inspect.signature(self.open).parameters.values()
        return tuple(p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY)
