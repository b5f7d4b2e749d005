"""What the values of each column are like: sizes, ranges, histograms.

Responsible for: `summarise`, which looks at all records or at a fair sample of them, and says for
every column how many values are missing, how large they are, and how they are spread.

Rules:
- memory is bounded: numbers are kept as numbers, of at most `MOST_VALUES` values a column; of
  texts and bytes only their lengths, and of texts how often the short ones came;
- a sample is drawn without repetition and is the same for the same seed.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from splitpipe.dataset import Dataset

__all__ = ["ColumnSummary", "Histogram", "Summary", "summarise"]

BINS: Final = 10
MOST_VALUES: Final = 1 << 22
_BLOCK: Final = 512
_DISTINCT: Final = 10_000
_COMMON: Final = 5
_SHORT: Final = 80
Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Histogram:
    """How numbers are spread.

    Attributes:
        count: how many numbers.
        least, most: of the finite ones.
        mean, deviation: of the finite ones; the standard deviation of a population.
        quantiles: at 1, 25, 50, 75 and 99 per cent.
        edges: of the histogram's bins, one more than `counts`.
        counts: numbers in each bin.
        not_finite: how many were NaN or infinite.
    """

    count: int
    least: float | None
    most: float | None
    mean: float | None
    deviation: float | None
    quantiles: tuple[float, ...]
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    not_finite: int = 0

    @classmethod
    def of(cls, numbers: Numbers) -> Histogram:
        """The histogram of some numbers.

        Example:
            >>> Histogram.of(np.arange(5.0)).mean
            2.0
        """
        finite = numbers[np.isfinite(numbers)]
        lost = len(numbers) - len(finite)
        if not len(finite):
            return cls(len(numbers), None, None, None, None, (), (), (), lost)
        counts, edges = np.histogram(finite, bins=BINS)
        return cls(
            count=len(numbers),
            least=float(finite.min()),
            most=float(finite.max()),
            mean=float(finite.mean()),
            deviation=float(finite.std()),
            quantiles=tuple(np.quantile(finite, (0.01, 0.25, 0.5, 0.75, 0.99)).tolist()),
            edges=tuple(edges.tolist()),
            counts=tuple(counts.tolist()),
            not_finite=lost,
        )


@dataclass(frozen=True, slots=True)
class ColumnSummary:
    """What one column is like.

    Attributes:
        name, type: of the column.
        values: how many were looked at and were there.
        missing: how many were looked at and were missing.
        nbytes: sizes of the values in bytes, as they lie in memory.
        numbers: the values of scalars, or the elements of arrays; None for others.
        shapes: shapes of arrays and how often they came, the commonest first.
        common: values of short texts and how often they came, the commonest first; empty where
            there are too many different ones.
    """

    name: str
    type: str
    values: int
    missing: int
    nbytes: Histogram
    numbers: Histogram | None = None
    shapes: tuple[tuple[tuple[int, ...], int], ...] = ()
    common: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Summary:
    """What a dataset is like.

    Attributes:
        path: what it was opened as.
        records: how many there are.
        looked_at: how many of them the figures are of.
        columns: of each column.
    """

    path: str
    records: int
    looked_at: int
    columns: tuple[ColumnSummary, ...]


def summarise(dataset: Dataset, *, sample: int | None = 10_000, seed: int = 0) -> Summary:
    """Look at the values of every column.

    Args:
        dataset: any dataset.
        sample: how many records to look at; None for all.
        seed: of the sample.

    Example:
        >>> import tempfile, splitpipe as sp
        >>> path = tempfile.mkdtemp()
        >>> with sp.DatasetWriter(path) as writer:
        ...     writer.write_many({"text": "ab" * n, "n": n} for n in range(5))
        >>> text, n = summarise(sp.open_dataset(path)).columns
        >>> text.nbytes.most, n.numbers.mean
        (8.0, 2.0)
    """
    looked = dataset
    if sample is not None and sample < len(dataset):
        looked = dataset.sample(sample, seed=seed)
    schema = dataset.schema
    gathered = {name: _Gathered() for name in schema}
    for start in range(0, len(looked), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(looked)), dtype=np.int64)
        for name, values in looked.records.read(rows, tuple(schema)).items():
            gathered[name].add(values)
    columns = tuple(gathered[name].summary(name, _type(schema[name])) for name in schema)
    return Summary(repr(dataset), len(dataset), len(looked), columns)


def _type(column: Any) -> str:
    text = repr(column)
    return text[text.index("(") + 1 : -1].replace("'", "")


@dataclass(slots=True)
class _Gathered:
    """What was seen of one column so far."""

    missing: int = 0
    sizes: list[float] = field(default_factory=list)
    numbers: list[Numbers] = field(default_factory=list)
    count: int = 0
    shapes: Counter[tuple[int, ...]] = field(default_factory=Counter)
    texts: Counter[str] = field(default_factory=Counter)
    many: bool = False

    def add(self, values: Any) -> None:
        """Look at values of the column, an array of them or a list."""
        for value in values:
            if value is None:
                self.missing += 1
            elif isinstance(value, np.ndarray):
                self.sizes.append(value.nbytes)
                self.shapes[value.shape] += 1
                self._keep(value)
            elif isinstance(value, int | float | np.generic):
                self.sizes.append(getattr(value, "nbytes", 8))
                self._keep(np.asarray(value))
            elif isinstance(value, str):
                self.sizes.append(len(value.encode("utf-8", "surrogatepass")))
                self._note(value)
            elif isinstance(value, bytes | bytearray | memoryview):
                self.sizes.append(len(value))
            else:
                text = json.dumps(value, default=repr)
                self.sizes.append(len(text))

    def _keep(self, value: npt.NDArray[Any]) -> None:
        room = MOST_VALUES - self.count
        if room <= 0 or value.dtype.kind not in "biuf":
            return
        flat = value.reshape(-1)
        if len(flat) > room:
            flat = flat[:: -(-len(flat) // room)]
        self.numbers.append(flat.astype(np.float64))
        self.count += len(flat)

    def _note(self, text: str) -> None:
        if self.many or len(text) > _SHORT:
            return
        self.texts[text] += 1
        if len(self.texts) > _DISTINCT:
            self.many = True
            self.texts.clear()

    def summary(self, name: str, kind: str) -> ColumnSummary:
        """What was seen."""
        numbers = Histogram.of(np.concatenate(self.numbers)) if self.numbers else None
        common = tuple(self.texts.most_common(_COMMON))
        return ColumnSummary(
            name,
            kind,
            len(self.sizes),
            self.missing,
            Histogram.of(np.array(self.sizes, dtype=np.float64)),
            numbers,
            tuple(self.shapes.most_common(_COMMON)),
            common if common and common[0][1] > 1 else (),
        )
