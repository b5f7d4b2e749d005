"""`cache`: what comes here once need not be made again.

Responsible for: `Cache`, in memory (for the epochs of one run, in the process that runs the stage)
or on disk (for every run of the same graph).

Rules:
- what is kept is one whole epoch, the first; every later one is that again. So a run that begins in
  a later epoch gives the same items: what lies before a cache is always run as epoch 0;
- an epoch that was not read to its end is not kept;
- what is kept are bytes: nobody who gets an item changes what others get;
- in memory items are pickled; on disk they never are (see `plain_bytes`).
"""

from __future__ import annotations

import errno
import os
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from splitpipe.errors import CacheFull, GraphError, NotPicklable
from splitpipe.pipeline.stages.base import Context, Operation
from splitpipe.pipeline.stages.cache_file import CacheFile
from splitpipe.pipeline.stages.checks import choice, settle, whole

__all__ = ["Cache"]

_ITEMS, _STOPPED = "items", "stopped"


@dataclass(frozen=True)
class Cache(Operation):
    """The items of the first epoch, in every epoch, made once.

    Args:
        directory: where the file is; None keeps items in memory.
        fingerprint: of the graph that makes them: the name of the file (see `fingerprint`).
        max_bytes: most that is kept; None for any number.
        full: what happens when there is more: ``"raise"``, or ``"stop"``: nothing is kept, and
            every epoch makes its items again.
    """

    directory: str | None = None
    fingerprint: str | None = None
    max_bytes: int | None = None
    full: str = "raise"
    first_epoch: ClassVar[bool] = True

    def __post_init__(self) -> None:
        choice("full", self.full, ("raise", "stop"))
        if self.max_bytes is not None:
            settle(self, max_bytes=whole("max_bytes", self.max_bytes, least=0))
        if self.directory is not None:
            settle(self, directory=os.fspath(self.directory))
        name = self.fingerprint
        if name is not None and not (name.isascii() and name.isalnum()):
            raise GraphError(f"a fingerprint is letters and digits, not {name!r}")

    @property
    def label(self) -> str:
        return "cache"

    @property
    def measures(self) -> tuple[str, ...]:
        return ("cached items", "cached bytes", "replayed items")

    def complete(self, kept: dict[str, Any]) -> bool:
        """Whether items can be had without the input."""
        return _ITEMS in kept if self.directory is None else self._file().complete

    def apply(self, items: Iterator[Any], context: Context) -> Iterator[Any]:
        if self.directory is not None:
            yield from self._on_disk(items, context)
        elif _ITEMS in context.kept:
            for data in context.kept[_ITEMS]:
                context.measured["replayed items"] += 1
                yield pickle.loads(data)
        elif _STOPPED in context.kept:
            yield from items
        else:
            yield from self._in_memory(items, context)

    def _in_memory(self, items: Iterator[Any], context: Context) -> Iterator[Any]:
        kept: list[bytes] = []
        nbytes = 0
        for item in items:
            try:
                data = pickle.dumps(item, pickle.HIGHEST_PROTOCOL)
            except Exception as error:
                raise NotPicklable(
                    f"a {type(item).__name__} cannot be kept by {context.stage!r}: {error}"
                ) from error
            nbytes += len(data)
            if not self._has_room(nbytes, context):
                context.kept[_STOPPED] = True
                del kept, data
                yield item
                del item
                yield from items
                return
            kept.append(data)
            yield item
            del item
        context.kept[_ITEMS] = kept
        self._count(len(kept), nbytes, context)

    def _on_disk(self, items: Iterator[Any], context: Context) -> Iterator[Any]:
        file = self._file()
        if file.complete:
            for item, _ in file.read():
                context.measured["replayed items"] += 1
                yield item
                del item
            return
        writer = None if _STOPPED in context.kept else file.writer()
        if writer is None:
            yield from items
            return
        try:
            count = 0
            for item in items:
                writer.add(item)
                count += 1
                if not self._has_room(writer.nbytes, context):
                    context.kept[_STOPPED] = True
                    writer.abandon()
                    yield item
                    del item
                    yield from items
                    return
                yield item
                del item
            nbytes = writer.nbytes
            writer.finish()
            self._count(count, nbytes, context)
        finally:
            writer.abandon()

    def _has_room(self, nbytes: int, context: Context) -> bool:
        if self.max_bytes is None or nbytes <= self.max_bytes:
            return True
        if self.full == "stop":
            return False
        raise CacheFull(
            errno.ENOSPC,
            f"{context.stage!r} would keep more than {self.max_bytes} bytes of an epoch; allow "
            "more with max_bytes=, keep them on disk, or say full='stop'",
        )

    def _count(self, count: int, nbytes: int, context: Context) -> None:
        context.measured["cached items"] += count
        context.measured["cached bytes"] += nbytes

    def _file(self) -> CacheFile:
        assert self.directory is not None
        if self.fingerprint is None:
            raise GraphError("a cache on disk needs the fingerprint of its graph")
        return CacheFile(self.directory, self.fingerprint)
