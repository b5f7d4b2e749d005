"""What the methods of a `Pipeline` have in common."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

from splitpipe.errors import GraphError
from splitpipe.pipeline.stage import StageOptions
from splitpipe.pipeline.stages import Operation

__all__ = ["Methods", "function_of"]


class Methods:
    """A mixin of `Pipeline`: every method describes one stage more and returns a new value."""

    def _with(
        self,
        operation: Operation,
        name: str | None = None,
        options: StageOptions = StageOptions(),  # noqa: B008  a frozen value
        others: Iterable[Any] = (),
    ) -> Self:
        """Return the pipeline with a stage more, which reads this one and `others`."""
        raise NotImplementedError


def function_of(stage: str, function: Any) -> Any:
    """Return `function`, or refuse what cannot be called."""
    if not callable(function):
        raise GraphError(f"{stage} needs a function, not {function!r}")
    return function
