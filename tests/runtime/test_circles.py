"""What one pass made is gone with it, without the collector of circles."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest

import splitpipe as sp
from splitpipe.runtime import tasks

EPOCHS = 6


def test_an_epoch_is_gone_when_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it waits, with all that its stages held back, for the oldest generation's collection."""
    runs: list[weakref.ref[Any]] = []

    class Seen(tasks._EpochRun):
        def __init__(self, task: tasks.SequentialTask, epoch: int) -> None:
            super().__init__(task, epoch)
            runs.append(weakref.ref(self))

    monkeypatch.setattr(tasks, "_EpochRun", Seen)
    held = sp.Pipeline(range(100)).map(str, workers=1).shuffle(50).through(iter, workers=1)
    pipe = sp.zip(held, sp.Pipeline(range(40)).map(str, workers=1), uneven="shortest").batch(8)
    gc.collect()
    gc.disable()
    try:
        with pipe.loader(epochs=EPOCHS, executor="thread") as loader:
            assert sum(1 for _ in loader) == EPOCHS * 5
        alive = sum(run() is not None for run in runs)
    finally:
        gc.enable()
    assert len(runs) >= 2 * EPOCHS
    assert alive <= len(runs) / EPOCHS  # the last one of each task, at most
