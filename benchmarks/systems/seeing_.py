"""Runs of splitpipe that count, sample and tell, and runs that do not.

There is no switch for it: nobody would turn it. Here the functions that count are replaced by ones
that do nothing, in this process, of which the workers are forked. What is left of a blind run's
counters is the adding up of items and bytes, two numbers a message.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

from benchmarks.work import pairs

__all__ = ["Seeing"]


class _NoSampler:
    def __init__(self, meter: Any) -> None:
        """Look at nothing."""

    def close(self) -> None:
        """Nothing runs."""


def _nothing(*_: Any, **__: Any) -> None:
    """Count nothing."""


def _finish(meter: Any) -> None:
    """Tell the owner of the run that this worker may go, and no more."""
    from splitpipe.runtime import board

    if meter._row is not None:
        meter._row[board.FINISHED_AT] = 1.0


@contextmanager
def _blind() -> Iterator[None]:
    from splitpipe.runtime import metrics, observer, worker

    names = ("take", "publish", "write", "wait", "resume", "waited", "enter", "leave", "flush")
    with ExitStack() as stack:
        stack.enter_context(patch.object(worker, "Sampler", _NoSampler))
        for name in names:
            stack.enter_context(patch.object(metrics.Meter, name, _nothing))
        stack.enter_context(patch.object(observer.OwnerMeter, "take", _nothing))
        stack.enter_context(patch.object(metrics.Meter, "finish", _finish))
        yield


class Seeing:
    """A generator in a process of its own."""

    @contextmanager
    def run(self, count: int, mode: str) -> Iterator[Any]:
        import splitpipe as sp

        with ExitStack() as stack:
            if mode == "blind":
                stack.enter_context(_blind())
            pipe = sp.Pipeline(partial(pairs, count))
            yield stack.enter_context(pipe.loader(start_method="fork"))
