"""splitpipe itself, through its public names alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import splitpipe as sp
from benchmarks.base import BatchWork, Run

__all__ = ["InlineStorage", "SplitpipePipeline", "SplitpipeStorage"]

BINS = 64


class _Reader:
    def __init__(self, directory: Path) -> None:
        self._path = str(directory)
        self._dataset: sp.Dataset = sp.open_dataset(self._path)
        self.get_batch = self._dataset.get_batch
        self._loader = sp.SplitDataLoader(self._path)

    def each(self, indices: Sequence[int]) -> Iterator[Any]:
        dataset = self._dataset
        for index in indices:
            yield dataset[index]

    def sequential(self) -> Iterator[Any]:
        return iter(self._dataset)

    def shuffled(self, seed: int) -> Iterator[Any]:
        """Bins permuted, records permuted inside each bin."""
        return iter(self._loader.iterate_binwise(shuffle=True, seed=seed))

    def close(self) -> None:
        self._dataset.close()


class _PipelineReader(_Reader):
    """Epochs through a pipeline without stages, in this process."""

    def sequential(self) -> Iterator[Any]:
        return iter(sp.Pipeline(self._dataset))

    def shuffled(self, seed: int) -> Iterator[Any]:
        return iter(sp.Pipeline(self._dataset, shuffle="binwise", seed=seed))


class _Rows:
    """Rows of one length, as a column of arrays."""

    def __init__(self, directory: Path) -> None:
        self._dataset: sp.Dataset = sp.open_dataset(str(directory))

    def rows(self, indices: Any, out: Any) -> Any:
        return self._dataset.get_batch(indices, out={"row": out})["row"]

    def close(self) -> None:
        self._dataset.close()


class SplitpipeStorage:
    """64 bins, checksums on, as `DatasetWriter` and `open_dataset` come."""

    def write(self, directory: Path, records: Sequence[bytes]) -> None:
        """One commit, durable when the writer is left."""
        with sp.DatasetWriter(str(directory), bins=BINS) as writer:
            writer.write_many(records)

    def open(self, directory: Path) -> Any:
        """Map the index."""
        return _Reader(directory)

    def write_rows(self, directory: Path, rows: Any) -> None:
        """A column of arrays of one shape."""
        schema = sp.Schema({"row": sp.ndarray(str(rows.dtype), rows.shape[1:])})
        with sp.DatasetWriter(str(directory), bins=BINS, schema=schema) as writer:
            writer.write_many({"row": row} for row in rows)

    def open_rows(self, directory: Path) -> Any:
        """Map the index."""
        return _Rows(directory)


def _empty(shape: tuple[int, ...], dtype: str, near: Any = None) -> Any:
    return sp.empty(shape, dtype, near=near)


def _fill(number: int, work: BatchWork) -> Any:
    return work.fill(number, _empty)


def _fill_all(numbers: Iterable[int], work: BatchWork) -> Iterator[Any]:
    for number in numbers:
        yield work.fill(number, _empty)


def _generated(_: Iterable[Any], generate: Callable[[int], Iterable[Any]], count: int) -> Any:
    return generate(count)


class _Run:
    def __init__(self, pipe: sp.Pipeline, count: int, epochs: int, options: dict[str, Any]) -> None:
        self._count, self._epochs = count, epochs
        self._loader = pipe.loader(epochs=epochs, **options)
        self._items = iter(self._loader)

    def __iter__(self) -> Iterator[Any]:
        """One epoch of several is a slice of the loader's stream; a single one ends by itself."""
        return self._items if self._epochs == 1 else islice(self._items, self._count)

    def close(self) -> None:
        self._loader.close()


class InlineStorage(SplitpipeStorage):
    """The same dataset, its epochs read through `Pipeline`."""

    def open(self, directory: Path) -> Any:
        return _PipelineReader(directory)


class SplitpipePipeline:
    """One pipeline in several forms.

    Args:
        form: ``rows`` maps rows and stacks them with `batch`; ``empty`` maps a function that fills
            `sp.empty`; ``generator`` does so in a free generator; ``copy`` maps a function that
            returns its own array. Work that has no rows takes ``empty`` for ``rows``.
        auto: Let the run find out how many workers pay, whatever a case says.
        options: Passed on to `Pipeline.loader`.
    """

    def __init__(self, form: str = "rows", *, auto: bool = False, **options: Any) -> None:
        self._form, self._auto, self._options = form, auto, options
        # Imported when first named: a case about starting has imported before its clock starts.
        # Not at the top: workers import this module for its functions, and need none of these.
        self._named = (sp.Pipeline, sp.Loader, sp.empty)

    def batches(self, work: BatchWork, count: int, *, workers: int, epochs: int = 1) -> Run:
        form = "empty" if self._form == "rows" and work.rows is None else self._form
        if form == "rows":
            assert work.rows is not None
            rows = sp.Pipeline(range(count * work.rows)).map(
                work.row, workers="auto" if self._auto else workers
            )
            pipe = rows.batch(work.rows)
        elif form == "generator":
            pipe = sp.Pipeline(range(count)).through(_fill_all, work, workers=1)
        elif form == "copy":
            pipe = sp.Pipeline(range(count)).map(work.reusing(0).make, workers=workers)
        else:
            pipe = sp.Pipeline(range(count)).map(partial(_fill, work=work), workers=workers)
        return _Run(pipe, count, epochs, self._options)

    def map(self, function: Callable[[int], Any], count: int, *, workers: int) -> Run:
        pipe = sp.Pipeline(range(count)).map(function, workers=workers)
        return _Run(pipe, count, 1, self._options)

    def stream(self, generate: Callable[[int], Iterable[Any]], count: int) -> Run:
        pipe = sp.Pipeline(partial(generate, count))
        return _Run(pipe, count, 1, self._options)

    def chain(
        self,
        generate: Callable[[int], Iterable[Any]],
        count: int,
        middle: Callable[[Iterable[Any]], Iterable[Any]],
        hops: int,
    ) -> Run:
        pipe = sp.Pipeline([0]).through(_generated, generate, count, workers=1)
        for _ in range(hops):
            pipe = pipe.through(middle, workers=1)
        return _Run(pipe, count, 1, self._options)
