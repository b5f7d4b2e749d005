"""The order that a pipeline asks for.

Responsible for: `make_order`, which knows all kinds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from splitpipe.errors import GraphError
from splitpipe.order.base import Order, global_order, sequential_order

if TYPE_CHECKING:
    from splitpipe.storage.layout import BinLayout

__all__ = ["make_order"]


def make_order(
    source: Sequence[Any],
    shuffle: str | None,
    seed: int,
    epoch: int,
    window: int = 1,
    lanes: int = 1,
) -> Order:
    """The order in which a pipeline reads a sequence.

    Args:
        source: a `Dataset`, a list, a range: anything with a length.
        shuffle: ``None`` for the sequence's own order, ``"global"`` for a shuffle of
            everything, ``"binwise"`` for a shuffle that reads bin after bin.
        seed: any integer.
        epoch: any integer.
        window: for ``"binwise"``, how many bins are shuffled together.
        lanes: into how many stretches the rows are cut, each with such an order of its own.

    Raises:
        GraphError: ``shuffle`` is none of these, or the source has no bins.

    Example:
        >>> sorted(make_order(range(4), "global", seed=0, epoch=0))
        [0, 1, 2, 3]
        >>> list(make_order(range(7), None, seed=0, epoch=0, lanes=2))
        [0, 3, 1, 4, 2, 5, 6]
    """
    if lanes != 1:
        return _in_lanes(source, shuffle, seed, epoch, window, lanes)
    if shuffle is None:
        return sequential_order(len(source))
    if shuffle == "global":
        return global_order(len(source), seed=seed, epoch=epoch)
    layout = _layout(source, shuffle)
    from splitpipe.order.binwise import binwise_order  # needs what datasets need

    return binwise_order(layout, seed=seed, epoch=epoch, window=window)


def _in_lanes(
    source: Sequence[Any], shuffle: str | None, seed: int, epoch: int, window: int, lanes: int
) -> Order:
    from splitpipe.order.lanes import (  # seldom asked for
        BinwiseLanes,
        GlobalLanes,
        LaneOrder,
        Lanes,
        SequentialLanes,
    )

    of: Lanes
    if shuffle is None:
        of = SequentialLanes(len(source))
    elif shuffle == "global":
        of = GlobalLanes(len(source), seed, epoch)
    else:
        of = BinwiseLanes(_layout(source, shuffle), seed, epoch, window)
    return LaneOrder(of, lanes)


def _layout(source: Sequence[Any], shuffle: str) -> BinLayout:
    if shuffle != "binwise":
        raise GraphError(f'shuffle must be None, "binwise" or "global", not {shuffle!r}')
    layout = getattr(source, "bin_layout", None)
    if layout is None:
        raise GraphError(
            f'a {type(source).__name__} has no bins to shuffle: use shuffle="global", or a '
            'dataset from open_dataset with shuffle="binwise"'
        )
    made: BinLayout = layout()
    return made
