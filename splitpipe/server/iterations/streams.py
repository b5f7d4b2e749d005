"""From a description to a stream of batches.

Responsible for: `open_stream` and `stream_of`, which say which pipeline makes an iteration, and
`count`.

Rules:
- where no sample has to be looked at before it is in a batch, groups are known by arithmetic, and
  one stage makes everything; else samples are examined, put together, and finished, in three;
- both give the same batches where both could be used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from splitpipe.errors import ResumeError
from splitpipe.loader import Loader
from splitpipe.pipeline.builder import Pipeline
from splitpipe.server.catalog import open_snapshot
from splitpipe.server.iterations.assemble import Assemble
from splitpipe.server.iterations.batches import Batches, Ordering
from splitpipe.server.iterations.description import IterationSpec, ModuleRef
from splitpipe.server.iterations.finish import Encode, Finish
from splitpipe.server.iterations.patience import Patience, Step
from splitpipe.server.iterations.samples import Decode, Examine, Numbered
from splitpipe.server.iterations.stream import BatchStream
from splitpipe.server.iterations.tally import Arithmetic, Count, Tally
from splitpipe.server.modules.finding import find

__all__ = ["chosen", "columns_of", "count", "open_stream", "stream_of"]

_VERSION = 1

# Stages are methods, not the values that they belong to: a state of the pipeline remembers values,
# and it shall fit wherever the dataset lies and however many workers there are.


def open_stream(
    spec: IterationSpec,
    snapshot: Mapping[str, Any],
    modules: Path | None,
    *,
    start: int = 0,
    checkpoint: Mapping[str, Any] | None = None,
) -> BatchStream:
    """Return the batches of an iteration, from number `start` on.

    Args:
        spec: what is asked for.
        snapshot: what its dataset is, as pinned.
        modules: the folder of the generation that it uses; None: it uses none.
        start: the first batch that is given.
        checkpoint: what a stream of this iteration has told, at `start` or before.

    Raises:
        SplitpipeError: the dataset, a column or a module is not there, or is not what it was.
    """
    dataset = open_snapshot(snapshot, columns_of(spec))
    try:
        return stream_of(
            spec,
            dataset,
            modules,
            start=start,
            checkpoint=checkpoint,
            remote=any(one["remote"] for one in snapshot["column_sets"]),
            close=dataset.close,
        )
    except BaseException:
        dataset.close()
        raise


def stream_of(
    spec: IterationSpec,
    dataset: Any,
    modules: Path | None = None,
    *,
    start: int = 0,
    checkpoint: Mapping[str, Any] | None = None,
    encode: Encode | None = None,
    remote: bool = False,
    close: Any = None,
) -> BatchStream:
    """Return the batches of an iteration over a `Dataset`; see `open_stream`.

    Args:
        spec: what is asked for.
        dataset: all columns of it, or those of `spec`.
        modules: see `open_stream`.
        start: see `open_stream`.
        checkpoint: see `open_stream`.
        encode: makes frames of a batch; None: as they are sent.
        remote: whether records come from far away, so that they are to be fetched ahead.
        close: is called when the stream is closed.
    """
    if checkpoint is not None:
        _check(checkpoint, start)
    made = _Making(spec, chosen(spec, dataset), modules, encode)
    if spec.filters or spec.categorizer or spec.on_error == "skip":
        return made.examined(start, checkpoint, close)
    return made.straight(start, close, remote=remote)


def count(spec: IterationSpec, dataset: Any) -> int | None:
    """Return how many batches there will be; None where only making them tells."""
    if spec.filters or spec.categorizer or spec.on_error == "skip":
        return None
    return _batches(spec, chosen(spec, dataset)).total


def columns_of(spec: IterationSpec) -> list[str] | None:
    """Return the columns that a dataset is opened with: all where a question may be about others.

    Example:
        >>> columns_of(IterationSpec(dataset="a", columns=["x"])), columns_of(
        ...     IterationSpec(dataset="a", columns=["x"], where="n > 3")
        ... )
        (['x'], None)
    """
    return None if spec.where is not None else spec.columns


def chosen(spec: IterationSpec, dataset: Any) -> Any:
    """Return the records and columns that an iteration is about.

    Raises:
        FormatError: there is no such column, or the dataset cannot answer `where`.
        GraphError: it cannot have such an order.
    """
    if spec.where is not None:
        dataset = dataset.where(spec.where)
    if spec.columns is not None and list(dataset.schema) != spec.columns:
        dataset = dataset.select(spec.columns)
    _batches(spec, dataset).ordering.of(dataset, 0)
    return dataset


class _Making:
    """How the pipeline of an iteration is made."""

    def __init__(
        self, spec: IterationSpec, dataset: Any, modules: Path | None, encode: Encode | None
    ) -> None:
        self._spec = spec
        self._dataset = dataset
        self._modules = modules
        self._patience = Patience(spec.max_retry_count, spec.on_error == "skip")
        self._decode = Decode.of(dataset.schema) if spec.decode else None
        self._finish = Finish(
            self._step("collater", spec.collater),
            self._steps("preprocessor", spec.preprocessors),
            spec.batch_size == 0,
            self._patience,
            encode,
            spec.workers > 0,
        )

    def straight(self, start: int, close: Any, *, remote: bool) -> BatchStream:
        """Return the stream of groups that are known beforehand."""
        batches = replace(
            _batches(self._spec, self._dataset),
            rows=self._finish.bare or self._finish.collate is not None or self._decode is not None,
            decode=self._decode,
            patience=self._patience,
            remote=remote,
        )
        batches = replace(batches, begin=min(start, batches.total))
        pipe = Pipeline(batches, seed=self._spec.seed)
        pipe = pipe.map(self._finish.make, workers=self._workers, name="finish")
        return self._stream(self._loader(pipe, 1), Arithmetic(batches), 0, close)

    def examined(self, start: int, checkpoint: Mapping[str, Any] | None, close: Any) -> BatchStream:
        """Return the stream of samples that are looked at."""
        spec, dataset = self._spec, self._dataset
        examine = Examine(
            self._steps("filter", spec.filters),
            self._step("categorizer", spec.categorizer),
            self._decode,
            self._patience,
        )
        size = max(1, spec.batch_size)
        assemble = Assemble(dataset, examine, size, spec.drop_last, spec.waiting_nbytes)
        source = Numbered(dataset)
        pipe = Pipeline(source, shuffle=spec.shuffle, seed=spec.seed, window=spec.window)
        # What fails is left out in words; an item that ends its worker can only be by the stage.
        policy = "skip" if self._patience.skips else None
        pipe = pipe.map(examine.look, workers=self._workers, on_error=policy, name="examine")
        pipe = pipe.through(assemble.begin, name="assemble")
        heavy = self._finish.collate is not None or bool(self._finish.preprocess)
        workers = self._workers if heavy else None
        pipe = pipe.map(self._finish.make, workers=workers, on_error=policy, name="finish")
        if checkpoint is None:
            loader = self._loader(pipe, spec.epochs)
            return self._stream(loader, Tally(spec.skip_budget), start, close)
        tally = Tally.from_json(checkpoint["count"], spec.skip_budget)
        loader = self._loader(pipe, spec.epochs, checkpoint["pipeline"])
        return self._stream(loader, tally, start, close)

    def _stream(self, loader: Loader, tally: Count, begin: int, close: Any) -> BatchStream:
        inline = not self._spec.workers
        return BatchStream(loader, tally, begin=begin, inline=inline, close=close)

    def _loader(self, pipe: Pipeline, epochs: int, state: Any = None) -> Loader:
        executor = None if self._spec.workers else "inline"
        return pipe.loader(executor=executor, epochs=epochs, state=state)

    @property
    def _workers(self) -> int | None:
        return self._spec.workers or None

    def _steps(self, kind: str, refs: list[ModuleRef]) -> tuple[Step, ...]:
        steps = (self._step(kind, ref) for ref in refs)
        return tuple(step for step in steps if step is not None)

    def _step(self, kind: str, ref: ModuleRef | None) -> Step | None:
        if ref is None:
            return None
        return Step(ref.name, find(self._modules, kind, ref.name, ref.params))


def _batches(spec: IterationSpec, dataset: Any) -> Batches:
    ordering = Ordering(spec.shuffle, spec.seed, spec.window)
    size = max(1, spec.batch_size)
    return Batches(dataset, ordering, size, spec.epochs, spec.drop_last)


def _check(checkpoint: Mapping[str, Any], start: int) -> None:
    if checkpoint.get("version") != _VERSION:
        raise ResumeError(
            f"a checkpoint of version {checkpoint.get('version')!r} cannot be read; this is "
            f"version {_VERSION}"
        )
    if checkpoint["sequence"] > start:
        raise ResumeError(
            f"a checkpoint at batch {checkpoint['sequence']} is behind batch {start}; take an "
            "earlier one, or none"
        )
