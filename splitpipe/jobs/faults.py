"""What becomes of records that fail.

Responsible for: `Policy`, what a user says of them, and `FaultFile`, a file with a line of JSON for
each, of which a job that is done again has every line once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from splitpipe.errors import FormatError
from splitpipe.jobs.work import Fault
from splitpipe.storage import files

__all__ = ["FaultFile", "Policy", "policy_of"]


@dataclass(frozen=True, slots=True)
class Policy:
    """What becomes of records that fail.

    Attributes:
        skips: whether they are left out; else the first of them ends the run.
        path: of the file that has a line for each; ``None`` for none.
    """

    skips: bool = False
    path: str | None = None


def policy_of(said: str) -> Policy:
    """What a user means.

    Raises:
        FormatError: nothing.

    Example:
        >>> policy_of("quarantine:bad.jsonl")
        Policy(skips=True, path='bad.jsonl')
    """
    kind, _, path = str(said).partition(":")
    if kind == "quarantine" and path:
        return Policy(skips=True, path=path)
    if said not in ("raise", "skip"):
        raise FormatError(f"on_error must be 'raise', 'skip' or 'quarantine:PATH', not {said!r}")
    return Policy(skips=said == "skip")


def line_of(fault: Fault, job: str, source: str) -> dict[str, Any]:
    """What is kept of a fault, as JSON."""
    return {
        "job": job,
        "source": source,
        "position": fault.position,
        "records": fault.records,
        "record": fault.record,
        "key": fault.key,
        "stage": fault.stage,
        "error": fault.error,
        "message": fault.message,
        "traceback": fault.traceback,
    }


class FaultFile:
    """A file with a line for every record that failed. To be used in a ``with`` block.

    Args:
        path: of the file, made when missing; ``None`` keeps none.
        nbytes: how long it was at the last commit of the job; what was added to it since is of a
            run that was killed. ``None`` if there was none.
        job: which job it is.
        source: what the records are of, in words.

    Attributes:
        nbytes: how long it is.
    """

    def __init__(self, path: str | None, nbytes: int | None, job: str, source: str) -> None:
        self._path = "" if path is None else os.path.abspath(path)
        self._job, self._source = job, source
        self._descriptor: int | None = None
        self.nbytes = nbytes or 0
        if path is None:
            return
        flags = os.O_RDWR | os.O_CREAT
        self._descriptor = files.open_file(self._path, flags, doing="open for those that fail")
        try:
            # A shorter one is another file than before.
            size = files.size_of(self._path)
            self.nbytes = self._without_mine(size) if nbytes is None else min(nbytes, size)
            files.truncate(self._path, self.nbytes)
        except BaseException:
            self.close()
            raise

    def _without_mine(self, size: int) -> int:
        """How long the file is without the lines at its end that this job wrote."""
        length = 0
        for line in files.read_whole(self._path, limit=size).splitlines(keepends=True):
            try:
                mine = json.loads(line).get("job") == self._job
            except (ValueError, AttributeError):
                mine = False
            if mine:
                return length
            length += len(line)
        return length

    def add(self, faults: Iterable[Fault]) -> None:
        """Write lines, durably: they are there before the commit that they are part of."""
        if self._descriptor is None:
            return
        lines = [json.dumps(line_of(fault, self._job, self._source)) + "\n" for fault in faults]
        data = "".join(lines).encode()
        if data:
            files.write_at(self._descriptor, data, self.nbytes, self._path)
            files.sync(self._descriptor, self._path)
            self.nbytes += len(data)

    def close(self) -> None:
        """Close it; a second call does nothing."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            files.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
