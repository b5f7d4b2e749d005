"""What a user holds of raw samples.

Responsible for: `RawDataset`, a `Dataset` that knows where its files come from: its views fetch no
more than they are asked for, `plan` says what reading it takes, and `pipeline` begins a pipeline
that applies its transforms as stages.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from splitpipe.dataset import Dataset, dataset_of
from splitpipe.raw.planning import RawPlan, plan_of
from splitpipe.raw.records import RawRecords
from splitpipe.raw.transforms import TransformedRecords, gives_many
from splitpipe.storage.base import Records
from splitpipe.views import Columns, Subset

if TYPE_CHECKING:
    from splitpipe.pipeline.builder import Pipeline

__all__ = ["RawDataset"]


class RawDataset(Dataset):
    """Samples whose columns are files that a table names, made by `open_raw`.

    It is a `Dataset`: ``ds[i]`` fetches one sample and waits for it, ``get_batch`` several at once,
    and iterating reads ahead. Nothing is ever put in the place of a sample that cannot be read.

    Args:
        records: the samples, or what transforms make of them.
        on_error: what a pipeline does with samples that cannot be read, unless it says so itself.

    Example:
        >>> import pathlib, tempfile, splitpipe as sp
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> for n in range(20):
        ...     _ = (folder / f"{n}.txt").write_text(f"text {n}")
        >>> with sp.open_raw(folder, decode={"txt": sp.media.text()}) as ds:
        ...     len(ds), ds["7"], ds.get_batch([3, 1], columns=["txt"])
        (20, {'__key__': '7', 'txt': 'text 7'}, {'txt': ['text 3', 'text 1']})
    """

    __slots__ = ("on_error",)

    def __init__(self, records: RawRecords | TransformedRecords, on_error: Any = None) -> None:
        super().__init__(records)
        self.on_error = on_error

    def plan(self) -> RawPlan:
        """What reading all samples once takes; its text is what ``print`` shows of a dataset.

        Example:
            >>> import pathlib, tempfile, splitpipe as sp
            >>> folder = pathlib.Path(tempfile.mkdtemp())
            >>> _ = (folder / "a.txt").write_text("hello")
            >>> with sp.open_raw(folder) as ds:
            ...     ds.plan().requests
            1
        """
        records: Any = self._records
        transforms: tuple[Any, ...] = ()
        if isinstance(records, TransformedRecords):
            records, transforms = records.parent, records.transforms
        return plan_of(records, transforms)

    def pipeline(
        self,
        *,
        shuffle: str | None = None,
        seed: int = 0,
        window: int = 1,
        on_error: Any = None,
        workers: int | None = None,
    ) -> Pipeline:
        """A pipeline of the samples, in which every transform is a stage.

        A transform that makes several of one sample gives them one by one here; each failure is its
        stage's own. ``sp.Pipeline(ds)`` reads the dataset as it is instead: an item is ``ds[i]``.

        Args:
            shuffle: see `Pipeline`; so are ``seed`` and ``window``.
            seed: of the order and of transforms that ask for ``rng``.
            window: of a binwise order.
            on_error: what becomes of samples that cannot be read, and of those that a transform
                fails for; what `open_raw` was given unless said.
            workers: how many processes fetch, decode and transform.

        Example:
            >>> import pathlib, tempfile, splitpipe as sp
            >>> folder = pathlib.Path(tempfile.mkdtemp())
            >>> for n in range(3):
            ...     _ = (folder / f"{n}.txt").write_text("x" * n)
            >>> with sp.open_raw(folder, transforms=[lambda sample: len(sample["txt"])]) as ds:
            ...     list(ds.pipeline().map(lambda n: n + 1))
            [1, 2, 3]
        """
        records: Any = self._records
        policy = self.on_error if on_error is None else on_error
        transforms: tuple[Any, ...] = ()
        source: Dataset = self
        if isinstance(records, TransformedRecords):
            source, transforms = RawDataset(records.parent), records.transforms
        # By name: pipelines are a room above this one.
        begin = import_module("splitpipe.running").Pipeline
        pipe = begin(source, shuffle=shuffle, seed=seed, window=window, on_error=policy)
        if not transforms:  # a stage for workers to run in, in any case: graphs say no workers
            pipe = pipe.map(_itself, workers=workers, name="samples")
        for number, transform in enumerate(transforms):
            add = pipe.flat_map if gives_many(transform) else pipe.map
            pipe = add(transform, on_error=policy, workers=None if number else workers)
        made: Pipeline = pipe
        return made

    def _viewed(self, records: Records) -> Dataset:
        pushed = _pushed(records)
        return dataset_of(records) if pushed is None else RawDataset(pushed, self.on_error)

    def __reduce__(self) -> Any:
        return RawDataset, (self._records, self.on_error)

    def __fingerprint__(self) -> Any:
        """What decides the samples: not what becomes of those that fail."""
        return self._records

    def __repr__(self) -> str:
        return f"RawDataset({self._records!r})"

    def __str__(self) -> str:
        return str(self.plan())


def _itself(sample: Any) -> Any:
    return sample


def _pushed(records: Records) -> RawRecords | TransformedRecords | None:
    """A view of samples as samples of other rows and columns; ``None`` where it is more."""
    if isinstance(records, RawRecords | TransformedRecords):
        return records
    if isinstance(records, Subset):
        parent = _pushed(records.parent)
        return None if parent is None else parent.selected(records.selection)
    if isinstance(records, Columns):
        parent = _pushed(records.parent)
        if isinstance(parent, RawRecords):
            return parent.chosen(tuple(records.schema))
    return None
