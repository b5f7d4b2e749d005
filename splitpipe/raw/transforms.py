"""What is made of samples: functions from a sample to a sample, or to several.

Responsible for: `TransformedRecords`, the `Records` of what functions make of each sample.

Rules:
- a generator function makes any number of a sample, every other function exactly one (a list that
  it returns is one thing);
- positions are those of samples of the table, whatever becomes of each: by index, a sample of which
  several are made is a list of them. A pipeline applies such functions as stages, one thing at a
  time (`RawDataset.pipeline`);
- randomness belongs to a place in a stream, which an index is not: functions that ask for ``rng``
  are for pipelines.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy.typing as npt

from splitpipe.errors import FormatError
from splitpipe.raw.records import RawRecords
from splitpipe.schema import BARE, Schema
from splitpipe.storage.base import Batch, Catalog, Order, Rows, Unreadable, given_array, records_of
from splitpipe.storage.layout import BinLayout
from splitpipe.views import Selection
from splitpipe.views.outcomes import raised

__all__ = ["Transform", "TransformedRecords", "gives_many"]

Transform = Callable[[Any], Any]


def gives_many(transform: Transform) -> bool:
    """Whether a function makes any number of a sample.

    Example:
        >>> def halves(sample):
        ...     yield from (sample[:2], sample[2:])
        >>> gives_many(halves), gives_many(len)
        (True, False)
    """
    while hasattr(transform, "func"):  # a functools.partial
        transform = transform.func
    called = vars(type(transform)).get("__call__")
    return inspect.isgeneratorfunction(transform) or inspect.isgeneratorfunction(called)


class TransformedRecords:
    """What functions make of samples, by the index of the sample.

    Args:
        parent: the samples.
        transforms: applied one after the other.
    """

    def __init__(self, parent: RawRecords, transforms: Sequence[Transform]) -> None:
        self.parent = parent
        self.transforms = tuple(transforms)
        self.schema = Schema("pickle")  # anything: nothing here stores it
        self.catalog: Catalog | None = parent.catalog
        self._many = any(map(gives_many, self.transforms))

    def __len__(self) -> int:
        return len(self.parent)

    @property
    def identity(self) -> str:
        """That of the samples: a function may be mended, and a run gone on with."""
        return self.parent.identity

    @property
    def together(self) -> int:
        """As of the samples."""
        return self.parent.together

    def selected(self, selection: Selection) -> TransformedRecords:
        """What is made of some of the samples."""
        return TransformedRecords(self.parent.selected(selection), self.transforms)

    def read(
        self,
        rows: Rows,
        columns: Sequence[str],
        out: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> Batch:
        """See `splitpipe.storage.base.Records.read`."""
        given_array(self.schema, BARE, len(rows), out)  # which refuses one
        samples = records_of(self.parent.schema, self.parent.read(rows, tuple(self.parent.schema)))
        made = []
        for sample, row in zip(samples, rows.tolist(), strict=True):
            try:
                made.append(self._made(sample))
            except Exception as error:
                error.add_note(f"of sample {row}")
                raise
        return dict.fromkeys(columns, made)

    def iterate(self, order: Order, start: int, stop: int) -> Iterator[Any]:
        """See `splitpipe.storage.base.Records.iterate`."""
        return raised(self.outcomes(order, start, stop))

    def outcomes(self, order: Order, start: int, stop: int) -> Iterator[Any]:
        """As `iterate`, with an `Unreadable` in the place of what cannot be made."""
        for position, sample in enumerate(self.parent.outcomes(order, start, stop), start):
            if type(sample) is Unreadable:
                yield sample
                continue
            try:
                made = self._made(sample)
            except Exception as error:
                row = int(order.indices(position, position + 1)[0])
                error.add_note(f"of sample {row}")
                yield Unreadable(row, error)
                continue
            finally:
                del sample
            yield made
            del made

    def _made(self, sample: Any) -> Any:
        """What becomes of a sample: one thing, or a list."""
        made = [sample]
        for transform in self.transforms:
            if _asks_for_rng(transform):
                raise FormatError(
                    f"{_name(transform)} asks for rng, which belongs to a place in a stream: use "
                    "ds.pipeline(), which gives every sample its own"
                )
            try:
                if gives_many(transform):
                    made = [part for one in made for part in transform(one)]
                else:
                    made = [transform(one) for one in made]
            except Exception as error:
                error.add_note(f"while {_name(transform)} was applied")
                raise
        return made if self._many else made[0]

    def layout(self) -> BinLayout:
        """See `splitpipe.storage.base.Records.layout`."""
        return self.parent.layout()

    def close(self) -> None:
        """See `splitpipe.storage.base.Records.close`."""
        self.parent.close()

    def __reduce__(self) -> Any:
        return TransformedRecords, (self.parent, self.transforms)

    def __fingerprint__(self) -> Any:
        """What decides what is made."""
        return self.parent, self.transforms

    def __repr__(self) -> str:
        return f"{self.parent!r}, through {', '.join(map(_name, self.transforms))}"


def _asks_for_rng(transform: Transform) -> bool:
    try:
        return "rng" in inspect.signature(transform).parameters
    except (TypeError, ValueError):
        return False


def _name(transform: Transform) -> str:
    return str(getattr(transform, "__qualname__", None) or type(transform).__qualname__)
