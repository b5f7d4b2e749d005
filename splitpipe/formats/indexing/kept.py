"""Where the index of a foreign source is kept, and when it is still true.

Responsible for: `open_index`: the index that is there, or a new one, committed by a rename.

Rules:
- an index is kept in a folder ``.splitpipe`` beside the data, or in ``index_dir``. Where nothing
  can be written beside the data, a small source (up to `SMALL_NBYTES`) is indexed in memory each
  time, and a large one is refused with a word about ``index_dir``;
- nothing has the index's name before it is whole and durable: a killed build leaves finished jobs
  under other names, which the next build of the same source uses and then removes;
- one builder at a time: others wait, and find the index when they wake;
- an index holds while every file has the size and time that it had, and a sample of the files the
  same sampled bytes; the others are compared when they are first opened (``sources``).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Sequence

from splitpipe.errors import FormatError, StorageError
from splitpipe.formats.base import Indexing, Source
from splitpipe.formats.files.sources import fingerprint
from splitpipe.formats.indexing.build import Build, Scanner
from splitpipe.formats.indexing.index import Contents, Index, load_index
from splitpipe.formats.indexing.parts import FolderParts, MemoryParts
from splitpipe.storage import files

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows has no flock
    # Two builders then do the same work twice, and the last rename wins.
    fcntl = None  # type: ignore[assignment]

__all__ = ["FOLDER", "SMALL_NBYTES", "open_index"]

FOLDER = ".splitpipe"
SMALL_NBYTES = 64 << 20
_SAMPLED_FILES = 64
_CANNOT_WRITE = (errno.EACCES, errno.EPERM, errno.EROFS)
_ELSEWHERE = "name a folder for the index with index_dir="


def open_index(scanner: Scanner, source: Source, paths: Sequence[str], indexing: Indexing) -> Index:
    """The index of a source: the one that is kept, or else a new one.

    Args:
        scanner: of its format.
        source: where it lies.
        paths: its files, absolute, in the order of their records.
        indexing: where to keep it, and how to build it.

    Raises:
        FormatError: the source has broken records, or changed while it was read.
        StorageError: a file cannot be read, or the index cannot be written.
    """
    # As they read back from the index: lists for tuples.
    options = json.loads(json.dumps(scanner.options))
    contents = Contents(scanner.format, options, tuple(map(source.relative, paths)))
    path = _place(contents, source, indexing)
    found = _current(path, contents, paths)
    if found is not None:
        return found
    try:
        with files.translated("make the folder of the index", os.path.dirname(path), _ELSEWHERE):
            os.makedirs(os.path.dirname(path), exist_ok=True)
        lock = _lock(f"{path}.lock")
    except StorageError as error:
        if indexing.index_dir is None and error.errno in _CANNOT_WRITE:
            return _in_memory(_build(scanner, contents, paths, indexing), error)
        raise
    try:
        # Somebody else may have built it while we waited.
        found = _current(path, contents, paths)
        return found or _on_disk(path, _build(scanner, contents, paths, indexing))
    finally:
        files.close(lock)


def _build(scanner: Scanner, contents: Contents, paths: Sequence[str], indexing: Indexing) -> Build:
    return Build(scanner, contents, paths, [fingerprint(path) for path in paths], indexing)


def _place(contents: Contents, source: Source, indexing: Indexing) -> str:
    """Where the index of a source lies. Beside the data, both may be moved together."""
    told: list[object] = [contents.format, contents.options]
    told.append([source.relative(path) for path in source.paths])
    folder = os.path.join(source.root, FOLDER)
    if indexing.index_dir is not None:
        told.append(source.root)
        folder = indexing.index_dir
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]
    # Of a folder, which may get another name, only what is in it counts.
    name = contents.format if source.folder else os.path.basename(source.paths[0])
    # A name has at most 255 bytes, and ours adds some.
    short = os.fsencode(name)[:120].decode("utf-8", "ignore")
    return os.path.join(folder, f"{short}-{digest}.index")


def _current(path: str, contents: Contents, paths: Sequence[str]) -> Index | None:
    """The index at a path, if it is whole and still true."""
    try:
        index = load_index(path)
    except FormatError:
        return None
    except StorageError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, *_CANNOT_WRITE):
            return None
        raise
    return index if index.contents == contents and _holds(index, paths) else None


def _holds(index: Index, paths: Sequence[str]) -> bool:
    for path, file in zip(paths, index.files, strict=True):
        with files.translated("look at the file", path):
            found = os.stat(path)
        if (found.st_size, found.st_mtime_ns) != file.known_by[:2]:
            return False
    step = -(-len(paths) // _SAMPLED_FILES) or 1
    return all(
        fingerprint(path) == file.known_by
        for path, file in zip(paths[::step], index.files[::step], strict=True)
    )


def _lock(path: str) -> int:
    """The right to build one index, as an open file; waits for whoever has it.

    The system ends it with its owner, so that nobody waits for the dead.
    """
    descriptor = files.open_file(
        path, os.O_RDWR | os.O_CREAT, doing="lock the index", advice=_ELSEWHERE
    )
    try:
        with files.translated("lock the index", path, _ELSEWHERE):
            if fcntl is not None:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
    except BaseException:
        files.close(descriptor)
        raise
    return descriptor


def _in_memory(build: Build, reason: StorageError) -> Index:
    """The index of a small source beside which nothing can be written."""
    if build.nbytes > SMALL_NBYTES:
        raise StorageError(
            reason.errno or errno.EACCES,
            f"the index of {build.nbytes} bytes of data cannot be kept beside them "
            f"({reason.strerror}); {_ELSEWHERE}",
            reason.filename,
        ) from reason
    return Index("in memory", b"".join(build.run(MemoryParts())))


def _on_disk(path: str, build: Build) -> Index:
    """Build the index, commit it, and open it."""
    folder = f"{path}.building"
    # What fits into one job is done again as fast as it is kept.
    small = build.nbytes <= SMALL_NBYTES
    parts = MemoryParts() if small else FolderParts(folder, build.plan, build.scanner.words)
    temporary = f"{path}.new"
    try:
        _write(temporary, build.run(parts))
        with files.translated("name the index", path):
            os.replace(temporary, path)
    except BaseException:
        # Room for whoever has too little of it; finished parts are kept.
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    files.sync_directory(os.path.dirname(path))
    with files.translated("remove what is left of the build", folder):
        shutil.rmtree(folder, ignore_errors=small)
    return load_index(path)


def _write(path: str, pieces: Iterable[bytes]) -> None:
    descriptor = files.open_file(
        path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, doing="write the index", advice=_ELSEWHERE
    )
    try:
        at = 0
        for piece in pieces:
            files.write_at(descriptor, piece, at, path)
            at += len(piece)
        files.sync(descriptor, path)
    finally:
        files.close(descriptor)
