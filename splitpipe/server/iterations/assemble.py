"""Samples that stay, put together.

Responsible for: `Assemble`, the stage between what is asked of samples and what is done with
batches: one batch for every category as soon as it is full, what is left at the end of an epoch.

Rules:
- batches come in the order in which they become full; those that are left over, in the order of
  their first sample;
- everything is counted here, in the order of the records, and every group carries the sums up to
  it: what is lost behind this stage is seen by whoever compares them;
- it tells its state as rows of the dataset. Where it goes on they are read, and examined, again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from splitpipe.errors import ResumeError, StageFailed
from splitpipe.pipeline.stages.told import numbers_of, numbers_text
from splitpipe.server.iterations.finish import Group
from splitpipe.server.iterations.made import Failure
from splitpipe.server.iterations.samples import Examine, Sample
from splitpipe.storage.base import records_of

__all__ = ["MOST_FAILURES", "Assemble"]

WAITING_NBYTES = 1 << 30
MOST_FAILURES = 20
"""Failures that are told with a batch; all are counted."""


@dataclass(frozen=True)
class Assemble:
    """How batches are put together.

    Args:
        dataset: where samples come from.
        examine: what has been asked of them.
        size: samples a batch.
        drop_last: whether batches that are not full at the end of an epoch are left out.
        waiting_nbytes: the most that samples may hold which wait for their batch to be full.
    """

    dataset: Any
    examine: Examine
    size: int = 1
    drop_last: bool = False
    waiting_nbytes: int = WAITING_NBYTES

    def begin(self, items: Iterable[Sample | Failure | None]) -> Assembly:
        """Return the groups of an epoch."""
        return Assembly(self, items)


class Assembly:
    """One epoch of it.

    Args:
        plan: how batches are put together.
        items: one for every record.
    """

    def __init__(self, plan: Assemble, items: Iterable[Sample | Failure | None]) -> None:
        self._plan = plan
        self._items = items
        self._held: dict[Any, list[Sample]] = {}
        self._read = 0
        self._placed = 0
        self._filtered = 0
        self._failed = 0
        self._failures: list[Failure] = []
        self._over = False
        self._nbytes: dict[Any, int] = {}
        self._waiting_nbytes = 0

    def __iter__(self) -> Iterator[Group]:
        held, size = self._held, self._plan.size
        for item in () if self._over else self._items:
            self._read += 1
            if not isinstance(item, Sample):
                self._left_out(item)
                continue
            group = held.get(item.category)
            if group is None:
                group = held[item.category] = []
            group.append(item)
            category = item.category
            self._weigh(item)
            del item
            if len(group) >= size:
                del held[category]
                self._waiting_nbytes -= self._nbytes.pop(category)
                yield self._group(category, group)
            del group
        # A record that ended its worker too often is not here: it failed, too.
        self._failed += len(self._plan.dataset) - self._read
        self._read = len(self._plan.dataset)
        for category in tuple(held):
            group = held.pop(category)
            if self._plan.drop_last:
                self._filtered += len(group)
            else:
                yield self._group(category, group)
        if not self._over:
            self._over = True
            yield self._counted(None, 0, -1, None)

    def _weigh(self, item: Sample) -> None:
        """Count what waits. A bound on batches is none: there may be any number of categories."""
        nbytes = _nbytes(item.record)
        self._nbytes[item.category] = self._nbytes.get(item.category, 0) + nbytes
        self._waiting_nbytes += nbytes
        if self._waiting_nbytes > self._plan.waiting_nbytes and len(self._held) > 1:
            raise StageFailed(
                f"samples of {len(self._held)} categories wait for their batches to be full, and "
                f"hold more than {self._plan.waiting_nbytes} bytes. Let the categorizer tell fewer "
                "categories, make batches smaller, or raise waiting_nbytes"
            )

    def _left_out(self, item: Failure | None) -> None:
        if item is None:
            self._filtered += 1
            return
        self._failed += 1
        if len(self._failures) < MOST_FAILURES:
            self._failures.append(item)

    def _group(self, category: Any, samples: list[Sample]) -> Group:
        self._placed += len(samples)
        records = [sample.record for sample in samples]
        return self._counted(records, len(samples), samples[0].row, category)

    def _counted(self, records: Any, samples: int, first: int, category: Any) -> Group:
        failures, self._failures = tuple(self._failures), []
        counts = (self._placed, self._filtered, self._failed)
        return Group(records, samples, first, *counts, failures, category)

    def state_dict(self) -> dict[str, Any]:
        """Return where it is, in values of JSON."""
        return {
            "read": self._read,
            "placed": self._placed,
            "filtered": self._filtered,
            "failed": self._failed,
            "failures": [list(failure) for failure in self._failures],
            "over": self._over,
            "held": [
                [_told(category), numbers_text([sample.row for sample in samples])]
                for category, samples in self._held.items()
            ],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was called.

        Raises:
            ResumeError: a sample that was held does not stay any more.
        """
        self._read, self._placed = state["read"], state["placed"]
        self._filtered, self._failed = state["filtered"], state["failed"]
        self._failures = [Failure.from_json(told) for told in state["failures"]]
        self._over = state["over"]
        for category, rows in state["held"]:
            made = _category(category)
            self._held[made] = []
            for row in self._records(numbers_of(rows)):
                self._held[made].append(sample := self._again(row, made))
                self._weigh(sample)

    def _records(self, rows: list[int]) -> Iterator[tuple[int, Any]]:
        dataset = self._plan.dataset
        schema = dataset.schema
        columns = dataset.records.read(np.array(rows, np.int64), tuple(schema))
        return zip(rows, records_of(schema, columns), strict=True)

    def _again(self, item: tuple[int, Any], category: Any) -> Sample:
        made = self._plan.examine.look(item)
        if not isinstance(made, Sample):
            why = "a filter leaves it out now" if made is None else f"now {made}"
            raise ResumeError(
                f"record {item[0]} waited for its batch to be full when the state was told; {why}. "
                "A filter must say the same of the same sample every time"
            )
        return made._replace(category=category)


def _nbytes(value: Any) -> int:
    """About how many bytes a value takes."""
    if isinstance(value, Mapping):
        return sum(map(_nbytes, value.values()))
    if isinstance(value, list | tuple):
        return 8 * len(value) + sum(map(_nbytes, value))
    nbytes = getattr(value, "nbytes", None)
    if isinstance(nbytes, int):
        return nbytes
    return len(value) if isinstance(value, str | bytes) else 8


def _told(category: Any) -> Any:
    """Return a category in values of JSON."""
    return [_told(part) for part in category] if type(category) is tuple else category


def _category(told: Any) -> Any:
    return tuple(map(_category, told)) if isinstance(told, list) else told
