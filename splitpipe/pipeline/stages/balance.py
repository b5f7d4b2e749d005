"""`balance`: samples spread over ranks by what they cost.

Responsible for: `Balance`, which says so in a description. It never runs: what it asks for is an
order of the source before it (see `splitpipe.pipeline.graph`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from splitpipe.errors import GraphError
from splitpipe.pipeline.stages.base import Context, Operation

__all__ = ["Balance"]


@dataclass(frozen=True, eq=False)  # an array of costs has no one equality
class Balance(Operation):
    """Steps that cost every rank about the same; see `Pipeline.balance`.

    Args:
        cost: of a record: a column, an array, a function of the index, or None: its length.
        window: steps that are planned together.
        size: samples of a rank in a step; None: those of the batch behind it.
        steps: ``"similar"`` or ``"even"``.
        method: how the samples of a step are divided.
    """

    cost: Any = None
    window: int = 1
    size: int | None = None
    steps: str = "similar"
    method: str = "largest-first"

    @property
    def ratio(self) -> int | None:
        return 1

    @property
    def label(self) -> str:
        return "balance"

    def apply(self, items: Iterator[Any], context: Context) -> Iterator[Any]:
        raise GraphError(
            f"{context.stage!r} orders a source before it is read, and cannot run by itself"
        )
