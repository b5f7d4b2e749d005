"""What a user says of recording.

Responsible for: `Record`, and making one of what `Pipeline.loader` is given.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from splitpipe.errors import GraphError
from splitpipe.pipeline.stage import check_count

__all__ = ["Record"]

LEAST_NBYTES = 64 << 10
"""Less than this holds a heading and little else."""


@dataclass(frozen=True)
class Record:
    """How a loader records what it delivers: ``pipe.loader(record=sp.Record("runs/7"))``.

    Args:
        directory: where to; a folder for each rank, and for nothing else.
        load: how the pipeline is found again, as ``module:name`` or ``file.py:name``; None: looked
            for among the names of the program.
        digests: whether the content of every item is noted, so that a replay can be compared. It
            costs the time of reading each item once (20 GB/s for large arrays).
        max_bytes: most that all files together may take; the oldest are removed.
        every_s: seconds between two notes of the loader's state, from where a replay begins.

    Example:
        >>> import tempfile
        >>> import splitpipe as sp
        >>> from splitpipe.recording import Recording
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pipe = sp.Pipeline(range(8), shuffle="global", seed=1).batch(2)
        ...     with pipe.loader(executor="inline", record=sp.Record(folder)) as loader:
        ...         for batch in loader:
        ...             pass
        ...     entry = Recording(folder).entry(2)
        >>> entry.step, entry.epoch, entry.ordinal
        (2, 0, 2)
    """

    directory: str | os.PathLike[str]
    load: str | None = None
    digests: bool = False
    max_bytes: int = 64 << 20
    every_s: float = 1.0

    def __post_init__(self) -> None:
        check_count("max_bytes", self.max_bytes, least=LEAST_NBYTES)
        if not self.every_s > 0:
            raise GraphError(f"every_s must be above 0, not {self.every_s!r}")
        if self.load is not None and ":" not in self.load:
            raise GraphError(f"load must be module:name or file.py:name, not {self.load!r}")

    @classmethod
    def of(cls, given: Record | str | os.PathLike[str], output: str = "") -> Record:
        """Return the options that a user gave in these words, for one output of a run."""
        options = given if isinstance(given, Record) else cls(given)
        if not output:
            return options
        return replace(options, directory=os.path.join(os.fspath(options.directory), output))
