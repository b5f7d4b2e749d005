"""The last step of a batch: collated, preprocessed, encoded.

Responsible for: `Group`, the records of a batch on their way; `Finish`, the stage that makes of it
what is delivered; `Done`, that.

Rules:
- it runs where the workers are: what travels behind it is bytes, in as few copies as there can be;
- a batch is made or fails as a whole; where failing batches are left out, the group still arrives,
  with what went wrong in the place of its bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from splitpipe.server.iterations.columns import stack, stacked
from splitpipe.server.iterations.made import Failure, place
from splitpipe.server.iterations.patience import NONE, Patience, Step

__all__ = ["Columns", "Done", "Encode", "Finish", "Group", "encode"]

Encode = Callable[[Any], Sequence[Any]]

_OUT_OF_BAND = 2048
"""Bytes from which a frame is handed on as an array, which lies in shared memory on its way."""


class Columns(NamedTuple):
    """Records of a batch that were read column by column."""

    schema: Any
    values: dict[str, Any]


class Group(NamedTuple):
    """Records that become a batch, and what was counted up to them.

    Attributes:
        records: they themselves, a list or `Columns`; None behind the last batch of an epoch.
        samples: how many there are.
        first: row of the dataset of the first of them.
        placed: records in groups of this epoch so far, these among them.
        filtered: records left out in this epoch so far.
        failed: records of this epoch that failed so far.
        failures: the first of those since the group before.
        category: of these records.
    """

    records: Any
    samples: int
    first: int
    placed: int
    filtered: int = 0
    failed: int = 0
    failures: tuple[Failure, ...] = ()
    category: Any = None


class Done(NamedTuple):
    """A group whose batch is made: the fields of `Group`, with bytes instead of records.

    Attributes:
        frames: the batch; None where there is none, or where it failed.
        samples: records in `frames`.
        placed: as of `Group`, like what follows.
        filtered: see `placed`.
        failed: see `placed`.
        failures: see `placed`; the one of this batch is the last.
        category: see `placed`.
        last: whether the epoch has no more.
    """

    frames: Sequence[Any] | None
    samples: int
    placed: int
    filtered: int
    failed: int
    failures: tuple[Failure, ...]
    category: Any
    last: bool


@dataclass(frozen=True)
class Finish:
    """What is done with the records of a batch.

    Args:
        collate: makes a batch of a list of records; None: they are stacked.
        preprocess: what is done with it after that, in turn.
        bare: whether groups are single records, which are not put together.
        patience: with what fails.
        encode: makes frames of what is delivered.
        travels: whether frames go to another process.
    """

    collate: Step | None = None
    preprocess: tuple[Step, ...] = ()
    bare: bool = False
    patience: Patience = NONE
    encode: Encode | None = None
    travels: bool = False

    def make(self, group: Group) -> Done:
        """Make the batch of a group."""
        frames, samples, failures = None, 0, group.failures
        if group.records is not None:
            made = self._made(group)
            if isinstance(made, Failure):
                failures = (*failures, made)
            else:
                frames, samples = made, group.samples
        return Done(
            frames,
            samples,
            group.placed,
            group.filtered,
            group.failed,
            failures,
            group.category,
            group.records is None,
        )

    def _made(self, group: Group) -> Sequence[Any] | Failure:
        stage, call = "collate", self.patience.call
        try:
            if self.collate is not None:
                stage = self.collate.name
            value = call(self._put_together, group.records)
            for step in self.preprocess:
                stage = step.name
                value = call(step.function, value)
            stage = "encode"
            frames = (self.encode or encode)(value)
        except Exception as error:
            if self.patience.leaves_out(error):
                return Failure.of(error, stage, group.first)
            error.add_note(place(stage, group.first, group.samples))
            raise
        return [_outside(frame) for frame in frames] if self.travels else frames

    def _put_together(self, records: Any) -> Any:
        if isinstance(records, Columns):
            return stacked(*records)
        if self.bare:
            return records[0]
        # Another list for every try: who takes records out of it must not shorten the next one.
        return stack(records) if self.collate is None else self.collate.function(list(records))


def encode(value: Any) -> Sequence[Any]:
    """Return the frames of a value.

    Raises:
        WireError: it cannot be sent.
    """
    from splitpipe.wire.values import encode as made  # needs an extra; who looks at a spec does not

    return made(value)


def _outside(frame: Any) -> Any:
    """Return a frame so that it takes part in no pickle, where it is large enough to matter."""
    if not isinstance(frame, bytes | bytearray | memoryview):
        return frame
    if memoryview(frame).nbytes < _OUT_OF_BAND:
        return bytes(frame)
    return np.frombuffer(frame, np.uint8)
