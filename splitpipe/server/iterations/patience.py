"""Trying again what failed.

Responsible for: `Patience`, which says how often, and for which errors.

Rules:
- only what the data or the work on them can bring about is tried again or left out; what the
  machinery of a run raises always ends it (`splitpipe.pipeline.stages.policy` draws the line);
- what is tried again is the same call; what it did to its argument before it failed stays done.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

from splitpipe.pipeline.stages.policy import LeaveOut, decide, retry, skip

__all__ = ["NONE", "Patience", "Step"]

T = TypeVar("T")

_DELAY_S = 0.05
_MOST_DELAY_S = 5.0

_SKIP = skip()


class Step(NamedTuple):
    """Something to do, and what it is called."""

    name: str
    function: Callable[[Any], Any]


@dataclass(frozen=True)
class Patience:
    """How often something is tried, and whether it may be left out.

    Args:
        retries: tries after the first.
        skips: whether what fails still is left out.

    Example:
        >>> answers = iter([OSError("busy")])
        >>> def flaky(x):
        ...     for error in answers:
        ...         raise error
        ...     return x
        >>> Patience(1).call(flaky, 3)
        3
    """

    retries: int = 0
    skips: bool = False

    def call(self, function: Callable[[Any], T], argument: Any) -> T:
        """Return ``function(argument)``.

        Raises:
            Exception: what it raised last.
        """
        if not self.retries:
            return function(argument)
        policy = retry(self.retries, delay_s=_DELAY_S, most_delay_s=_MOST_DELAY_S)
        tries = 0
        while True:
            try:
                return function(argument)
            except Exception as error:
                wait_s = decide(policy, error, tries)
                if not isinstance(wait_s, float):
                    raise
            tries += 1
            time.sleep(wait_s)

    def made(self, step: Step) -> Step:
        """Return the step as it is called most quickly, in the process that does."""
        function: Any = step.function
        function = getattr(function, "made", lambda: function)()
        return Step(step.name, partial(self.call, function) if self.retries else function)

    def leaves_out(self, error: Exception) -> bool:
        """Whether what failed so is left out."""
        return self.skips and isinstance(decide(_SKIP, error, 0), LeaveOut)


NONE = Patience()
"""What fails is raised at once."""
