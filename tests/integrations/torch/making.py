"""Pipelines whose batches say which items they have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import splitpipe as sp

ITEMS = 96
BATCH = 4


def image(number: int) -> dict[str, Any]:
    """An item of some kB, so that batches of it lie in shared memory."""
    return {"image": np.full((40, 40), number, np.float32), "label": number, "name": f"n{number}"}


def images(*, workers: int | None = None, items: int = ITEMS, ranks: int = 1) -> sp.Pipeline:
    """Shuffled images in batches, of the first rank where there are several."""
    pipe = sp.Pipeline(range(items), shuffle="global", seed=7).shard(0, ranks)
    return pipe.map(image, workers=workers).batch(BATCH)


def small(number: int) -> dict[str, Any]:
    """An item that a model of three inputs takes."""
    return {"x": np.full(3, number, np.float32), "label": number}


def numbers(
    *, known: bool = True, items: int = 48, also: Callable[[Any], Any] | None = None
) -> sp.Pipeline:
    """Shuffled batches; how many only running tells, unless it is `known`."""
    pipe = sp.Pipeline(range(items), shuffle="global", seed=5).map(small)
    pipe = pipe if also is None else pipe.map(also)
    return (pipe if known else pipe.filter(lambda one: one["label"] >= 0)).batch(BATCH)


def labels(batches: Any) -> list[list[int]]:
    """Return which items batches have."""
    return [batch["label"].tolist() for batch in batches]
