"""Stages that put items together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self, Unpack

from splitpipe.pipeline import stages
from splitpipe.pipeline.guarding import guarded
from splitpipe.pipeline.methods.base import Methods, PoolOptions, StreamOptions
from splitpipe.pipeline.stages.policy import Policy

if TYPE_CHECKING:
    from splitpipe.pipeline.stages import Length, Ragged

__all__ = ["GroupMethods"]


class GroupMethods(Methods):
    """Methods of a `Pipeline` that make batches, windows and packs.

    None of them loses an item unless it is told to; what is left out is counted, and what padding
    costs is measured (`Loader.stats`).
    """

    def batch(
        self,
        size: int,
        *,
        drop_last: bool = False,
        collate: Callable[[list[Any]], Any] | None = None,
        ragged: Ragged = "list",
        on_error: Policy | str | None = None,
        **options: Unpack[PoolOptions],
    ) -> Self:
        """Join `size` items into one.

        Arrays of one shape and type are stacked, numbers become an array, dicts and tuples are
        batched key by key, anything else becomes a list.

        Args:
            size: items a batch.
            drop_last: leave out a last batch that is not full (it is counted).
            collate: makes the batch out of the list of its items instead.
            ragged: what becomes of arrays, and lists of numbers, of different lengths: ``"list"``
                leaves them a list, ``"pad"`` or a `Pad` makes one array of them, a dict of `Pad`
                does so with the columns that it names.
            on_error: what becomes of a batch that cannot be made: it is left out whole, and all its
                items are counted; None: it is raised, whatever the loader says. See `map`.
            options: as for `map`.
        """
        operation = guarded(stages.Batch(size, drop_last, collate, ragged), on_error)
        return self._pooled(operation, options)

    def window(
        self,
        size: int,
        step: int = 1,
        *,
        drop_last: bool = False,
        collate: Callable[[list[Any]], Any] | None = None,
        ragged: Ragged = "list",
        **options: Unpack[StreamOptions],
    ) -> Self:
        """Join `size` items into one, each window `step` items after the one before.

        Args:
            size: items a window.
            step: with one below `size` windows overlap; beyond it the items between are left out
                and counted.
            drop_last: leave out what no full window reaches; it is counted.
            collate: as for `batch`; ``list`` gives lists.
            ragged: as for `batch`.
            options: see `StreamOptions`.

        Example:
            >>> import splitpipe as sp
            >>> list(sp.Pipeline(range(4)).window(2, collate=list))
            [[0, 1], [1, 2], [2, 3]]
        """
        return self._stream(stages.Window(size, step, drop_last, collate, ragged), options)

    def bucket(
        self,
        size: int | Sequence[int],
        *,
        length: Length = None,
        boundaries: Sequence[float] | None = None,
        buckets: int = 10,
        by: str = "padding",
        sample: int = 1000,
        max_tokens: float | None = None,
        oversized: str = "raise",
        drop_last: bool = False,
        collate: Callable[[list[Any]], Any] | None = None,
        ragged: Ragged = "list",
        **options: Unpack[StreamOptions],
    ) -> Self:
        """Join items of like length into batches, so that little of them is padding.

        Args:
            size: items a batch; or one number for each bucket, shortest first.
            length: of an item, as for `batch_by_cost`.
            boundaries: growing; the first bucket has the lengths below the first one.
            buckets: how many, where boundaries are learned from the first items of an epoch.
            by: ``"padding"``: learned for the least of it; ``"quantiles"``: for equal numbers.
            sample: how many items they are learned from.
            max_tokens: what a batch may cost with its padding, beside its size.
            oversized: of items that cost more by themselves: as for `batch_by_cost`.
            drop_last: leave out batches that are not full at the end; their items are counted.
            collate: as for `batch`, like `ragged`.
            ragged: see `collate`.
            options: see `StreamOptions`.

        Source: ``bucket_by_sequence_length`` of tf.data.

        Example:
            >>> import splitpipe as sp
            >>> words = sp.Pipeline(["a", "lengthy", "b", "wordings"])
            >>> list(words.bucket(2, boundaries=[4], collate=list))
            [['a', 'b'], ['lengthy', 'wordings']]
        """
        most, sizes = (max(size), tuple(size)) if isinstance(size, Sequence) else (size, None)
        learned = None if boundaries is not None else buckets
        given = None if boundaries is None else tuple(boundaries)
        which = stages.Buckets(given, learned, by, sample, sizes)
        limits = stages.Limits(most, max_tokens, True, oversized)
        return self._stream(
            stages.Bucket(which, limits, length, drop_last, collate, ragged), options
        )

    def batch_by_cost(
        self,
        max_tokens: float,
        *,
        length: Length = None,
        max_size: int | None = None,
        padded: bool = True,
        oversized: str = "raise",
        collate: Callable[[list[Any]], Any] | None = None,
        ragged: Ragged = "list",
        **options: Unpack[StreamOptions],
    ) -> Self:
        """Join consecutive items into batches of as many as may cost `max_tokens`.

        Args:
            max_tokens: what a batch may cost.
            length: what an item costs: a function, or the name of the column whose ``len()`` it is;
                None is the ``len()`` of the item.
            max_size: most items a batch.
            padded: a batch costs its number of items times the longest; False: the sum of them.
            oversized: what becomes of an item that costs more by itself: ``"raise"`` or
                ``"alone"``.
            collate: as for `batch`.
            ragged: as for `batch`.
            options: see `StreamOptions`.

        Example:
            >>> import splitpipe as sp
            >>> list(sp.Pipeline(["aa", "b", "cccc"]).batch_by_cost(4, collate=list))
            [['aa', 'b'], ['cccc']]
        """
        limits = stages.Limits(max_size, max_tokens, padded, oversized)
        return self._stream(stages.BatchByCost(limits, length, collate, ragged), options)

    def pack(
        self,
        length: int,
        *,
        strategy: str = "best_fit_decreasing",
        window: int = 1024,
        too_long: str = "raise",
        columns: Sequence[str] | None = None,
        pad: Any = 0,
        separator: Any = None,
        measure: Callable[[Any], int] | None = None,
        **options: Unpack[StreamOptions],
    ) -> Self:
        """Put sequences side by side into packs of one length, so that hardly any of it is padding.

        A pack is a dict: an array of the pack's length for every column, ``segment_ids`` (int32: 1
        for the tokens of the first sequence, 0 for padding), ``position_ids`` (int32: each token's
        number in its sequence) and ``lengths`` (int32: of the sequences).

        Args:
            length: of every pack.
            strategy: ``"best_fit_decreasing"``, ``"best_fit"``, ``"first_fit"``, or ``"concat"``:
                one after the other, cut where a pack is full.
            window: sequences that are planned together.
            too_long: what becomes of a sequence longer than a pack: ``"raise"``, ``"split"``, or
                ``"drop"`` (it is counted).
            columns: of an item that are sequences, all equally long; None: the item itself is one,
                and its column is called ``tokens``.
            pad: what is behind the sequences; or a dict of one value for each column.
            separator: is put behind every sequence; likewise.
            measure: instead of columns: items are anything, this says how long one is, and a pack
                is the list of its items.
            options: see `StreamOptions`.

        Source: Krell et al., "Efficient Sequence Packing without Cross-contamination", 2021; best
        fit decreasing: D. S. Johnson, 1973.

        Example:
            >>> import splitpipe as sp
            >>> packs = sp.Pipeline(["aaa", "bb", "c", "dd"]).pack(4, measure=len)
            >>> list(packs)
            [['aaa', 'c'], ['bb', 'dd']]
        """
        packing = stages.Packing(length, strategy, window, too_long)
        layout = stages.Layout(None if columns is None else tuple(columns), pad, separator)
        return self._stream(stages.Pack(packing, layout, measure), options)
