"""The file that a run is drawn into, as a user names it.

Responsible for: `TraceFile`. What is drawn, and how, is `splitpipe.runtime.trace`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from splitpipe.errors import GraphError
from splitpipe.pipeline.stages.checks import settle, whole

__all__ = ["TraceFile"]


@dataclass(frozen=True)
class TraceFile:
    """A file to draw a run into, and how large it may become: ``loader(trace=TraceFile(...))``.

    Args:
        path: where to; a file of that name is replaced.
        limit_bytes: what it may have at most. A worker that has used up its part of that draws no
            more, and the file says so; 64 MiB are about half a million events.

    Raises:
        GraphError: `path` is no path, or `limit_bytes` is no whole number of at least 1.

    Example:
        >>> import splitpipe as sp
        >>> sp.TraceFile("trace.json", limit_bytes=1 << 20)
        TraceFile(path='trace.json', limit_bytes=1048576)
    """

    path: str | os.PathLike[str]
    limit_bytes: int = 64 << 20

    def __post_init__(self) -> None:
        if not isinstance(self.path, str | os.PathLike):
            raise GraphError(f"trace must be a path or a TraceFile, not {self.path!r}")
        limit = whole("limit_bytes", self.limit_bytes, least=1)
        settle(self, path=os.fspath(self.path), limit_bytes=limit)

    @classmethod
    def of(cls, trace: TraceFile | str | os.PathLike[str] | None) -> TraceFile | None:
        """Return `trace` as one, where it is a path."""
        return trace if trace is None or isinstance(trace, TraceFile) else cls(trace)
