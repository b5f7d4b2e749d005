"""Telling Accelerate which batch of an epoch is the last.

Responsible for: `Signal`, what Accelerate's `GradientState` asks whether an epoch ends: with the
last batch accumulated gradients are applied, however many there are.

Rules:
- nothing is imported: where the program has made no `Accelerator`, nobody asks;
- it is Accelerate's active loader while an iteration is on, and not any more when that is over or
  was left. Iterations inside of one another are told apart, as Accelerate does it;
- nothing is cut off what was gathered of the last batches: which items were given twice, to fill
  ranks up, is the pipeline's to know (`Pipeline.shard`).
"""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["Signal", "signal_for_accelerate"]


class Signal:
    """An iteration, as Accelerate sees it.

    Args:
        state: its `GradientState`.
    """

    remainder = 0
    """Of the last batches, what is real; 0: all of it. Accelerate reads it."""

    def __init__(self, state: Any) -> None:
        self.end_of_dataloader = False
        """Whether the last batch was given. Accelerate reads it."""
        self._state = state
        self._is_on = True
        state._add_dataloader(self)

    def end(self) -> None:
        """The iteration is over, or was left. Safe to call twice."""
        if self._is_on:
            self._is_on = False
            self._state._remove_dataloader(self)


def signal_for_accelerate() -> Signal | None:
    """Return what tells Accelerate of an iteration that begins; None: nobody asks."""
    module = sys.modules.get("accelerate.state")
    kind = getattr(module, "GradientState", None)
    # Its state is the program's: made with the first `Accelerator`.
    if kind is None or not kind._shared_state:
        return None
    return Signal(kind())
