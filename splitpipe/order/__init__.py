"""Orders: which record comes at which position, as arithmetic.

Responsible for: `Order` and its kinds (sequential, global, binwise; any of them in lanes), each a
bijection from positions to rows that is a pure function of (number of rows or bin layout, seed,
epoch).

Rules:
- integer arithmetic only, on 32 and 64 bits: an order is the same on every machine, Python and
  numpy, and is pinned by golden values in the tests;
- no list of all rows: O(1) memory for the global order, O(bins) for the binwise one;
- an order opens nothing and pickles to a few numbers.

The bijection itself is in ``splitpipe/permutation.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from splitpipe.late import late
from splitpipe.order.base import (
    GlobalOrder,
    Order,
    Rows,
    SequentialOrder,
    global_order,
    sequential_order,
)
from splitpipe.order.making import make_order

if TYPE_CHECKING:
    from splitpipe.order.binwise import BinGroup, BinwiseOrder, binwise_order

__all__ = [
    "BinGroup",
    "BinwiseOrder",
    "GlobalOrder",
    "Order",
    "Rows",
    "SequentialOrder",
    "binwise_order",
    "global_order",
    "make_order",
    "sequential_order",
]

# They know how datasets lie in bins: workers that read none need none of that.
__getattr__ = late(
    __name__, dict.fromkeys(("BinGroup", "BinwiseOrder", "binwise_order"), ".binwise")
)
