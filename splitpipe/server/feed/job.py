"""What an engine is told to do.

Responsible for: `EngineJob`, and how its stream is opened.

Rules:
- all of it is JSON, and goes over the control line, never over a command line: a database's URL may
  hold a password, and so may keys.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from splitpipe.server.feed.memory import BatchStream
from splitpipe.server.feed.sharing import Division
from splitpipe.server.feed.tape import Opener
from splitpipe.server.iterations.description import IterationSpec

__all__ = ["EngineJob", "Place"]

OPEN_STREAM = "splitpipe.server.iterations.streams:open_stream"


@dataclass(frozen=True)
class EngineJob:
    """An iteration that is to be delivered.

    Attributes:
        iteration: its id.
        spec: its `IterationSpec`, as JSON.
        snapshot: what its dataset is, as pinned.
        modules: the folder of the modules that it uses; None: it uses none.
        total: how many batches it has, if that is known.
        opener: what opens its stream: a function, as ``module:name``.
    """

    iteration: str
    spec: Mapping[str, Any]
    snapshot: Mapping[str, Any]
    modules: str | None = None
    total: int | None = None
    opener: str = OPEN_STREAM

    def description(self) -> IterationSpec:
        """Its spec, as a value."""
        return IterationSpec.model_validate(self.spec)

    def stream(self) -> Opener:
        """What opens its stream."""
        module, _, name = self.opener.partition(":")
        function = getattr(importlib.import_module(module), name)
        spec = self.description()
        modules = None if self.modules is None else Path(self.modules)

        def opened(start: int, checkpoint: Any) -> BatchStream:
            stream: BatchStream = function(
                spec, self.snapshot, modules, start=start, checkpoint=checkpoint
            )
            return stream

        return opened


def division_of(spec: IterationSpec) -> Division:
    """How the stream of a spec is divided.

    Example:
        >>> division_of(IterationSpec(dataset="a", world_size=2)).number_of_groups
        2
    """
    return Division(spec.world_size, spec.replication_groups, spec.ends, spec.mode)


@dataclass(frozen=True)
class Place:
    """Where an engine listens and writes.

    Attributes:
        database: the URL of the server's database.
        run: a folder for sockets and locks, for this user alone.
        host: the address to bind to.
        ports: the first and the last port to try; (0, 0): any.
        public: the public half of its CURVE keys, and
        secret: the other half; None: it has none, and listens on loopback alone.
        durable: whether a commit waits for the disk.
    """

    database: str = field(repr=False)
    run: str
    host: str = "127.0.0.1"
    ports: tuple[int, int] = (0, 0)
    public: str | None = None
    secret: str | None = field(default=None, repr=False)
    durable: bool = False
