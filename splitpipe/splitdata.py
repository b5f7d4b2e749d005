"""The names of the package splitdataloader, on splitpipe's format.

Responsible for: `write_split_data` and `SplitDataLoader`, so that code written for that package
keeps its meaning. New code has `DatasetWriter` and `open_dataset`, which this is made of.

What is different, on purpose: writing into a dataset that is there is refused instead of
doubling it; ``start_clean`` removes a dataset and nothing else; nothing counts before all of it
was written; and a shuffled iteration can be repeated by its seed.
"""

from __future__ import annotations

import os
import random
import secrets
from collections.abc import Iterable, Iterator

from splitpipe.dataset import Dataset, open_dataset
from splitpipe.order import binwise_order
from splitpipe.storage.writer import DatasetWriter, checked_bins

__all__ = ["SplitDataLoader", "write_split_data"]


def write_split_data(
    target_dir: str | os.PathLike[str],
    input_sequence: Iterable[bytes],
    splits: int = 128,
    shuffle: bool = False,
    start_clean: bool = False,
) -> None:
    """Write records into a new dataset, dealt round-robin to ``splits`` bins.

    Args:
        target_dir: the dataset's directory.
        input_sequence: the records, bytes-like.
        splits: number of bins.
        shuffle: deal to the bins in a random order instead of by number, drawn from the
            module ``random``. Which records share a bin does not change.
        start_clean: replace the dataset that is there. Without, a directory that holds records
            already is refused: running twice would double them.

    Raises:
        StorageError: there are records already, or something that is not a dataset.
        FormatError: ``splits`` is not from 1 to 65536, or a record is not bytes-like; nothing
            is written then.

    Example:
        >>> import tempfile, splitpipe as sp
        >>> path = tempfile.mkdtemp()
        >>> sp.write_split_data(path, (b"%d" % n for n in range(5)), splits=2)
        >>> list(sp.SplitDataLoader(path).iterate_binwise())
        [b'0', b'2', b'4', b'1', b'3']
    """
    splits = checked_bins(splits, "splits")
    dealing = None
    if shuffle:
        dealing = list(range(splits))
        random.shuffle(dealing)
    with DatasetWriter(target_dir, bins=splits, overwrite=start_clean, dealing=dealing) as writer:
        writer.write_many(input_sequence)


class SplitDataLoader:
    """Reads what `write_split_data` wrote.

    Args:
        data_dir: the dataset's directory.

    Example:
        >>> import tempfile, splitpipe as sp
        >>> path = tempfile.mkdtemp()
        >>> sp.write_split_data(path, [b"a", b"b", b"c"], splits=2)
        >>> loader = sp.SplitDataLoader(path)
        >>> len(loader), loader[1], sorted(loader.iterate_binwise(shuffle=True, seed=0))
        (3, b'b', [b'a', b'b', b'c'])
    """

    def __init__(self, data_dir: str | os.PathLike[str]) -> None:
        self._dataset = open_dataset(data_dir)

    @property
    def dataset(self) -> Dataset:
        """The dataset beneath."""
        return self._dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> bytes:
        record: bytes = self._dataset[index]
        return record

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._dataset)

    def __repr__(self) -> str:
        return f"SplitDataLoader({self._dataset.path!r}, {len(self)} records)"

    def iterate_binwise(
        self,
        shuffle: bool = False,
        *,
        seed: int | None = None,
        epoch: int = 0,
    ) -> Iterator[bytes]:
        """Iterate bin by bin.

        Args:
            shuffle: shuffle the order of the bins, and the records inside each.
            seed: with ``shuffle``, any integer; the same seed and epoch give the same order.
                ``None`` draws one.
            epoch: any integer; every epoch of a seed is another shuffle.
        """
        if not shuffle:
            seed = None
        elif seed is None:
            seed = secrets.randbits(63)
        order = binwise_order(self._dataset.bin_layout(), seed=seed, epoch=epoch)
        return self._dataset.iterate(order)
