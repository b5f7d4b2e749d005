"""Batches as data sets have them: dicts in a dict, arrays of four types, strings beside them.

Responsible for: `NestedWork`. The rules of ``work.py`` hold: one copy makes a batch, every row of
the images carries its number, everything is compared before a figure is taken.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.base import WrongResult
from benchmarks.work import ArrayWork, Empty

__all__ = ["NestedWork"]

Array = npt.NDArray[Any]
SIDES = 2


@dataclass(frozen=True, slots=True)
class NestedWork:
    """Batches of images with their sizes, of targets, and of names, one string an image.

    Each array has a type of its own, so that a system with one buffer a type can do the work.
    """

    images: ArrayWork
    reuse: int = 1

    @property
    def rows(self) -> None:
        """A batch is made whole."""
        return None

    @property
    def nbytes(self) -> float:
        """Bytes of a batch's arrays."""
        return self.images.nbytes + (4 * SIDES + 8 + 4) * self.images.shape[0]

    @property
    def max_nbytes(self) -> int:
        """Bytes of a batch, with room for its strings."""
        return int(self.nbytes) + 256 * self.images.shape[0]

    def reusing(self, count: int) -> NestedWork:
        """The same work, its images in turns of `count` arrays; 0 for new ones each time."""
        return replace(self, reuse=count)

    def row(self, number: int) -> Any:
        """There are no rows to stack."""
        raise TypeError("a nested batch is made whole")

    def make(self, number: int) -> dict[str, Any]:
        """Batch `number`, its images in an array that `reuse` says."""
        images = self.images.reusing(self.reuse).make(number)
        return self._batch(number, images, lambda shape, dtype: np.empty(shape, dtype))

    def fill(self, number: int, empty: Empty) -> dict[str, Any]:
        """Batch `number` in memory from `empty`."""
        return self._batch(number, self.images.fill(number, empty), empty)

    def _batch(self, number: int, images: Array, empty: Empty) -> dict[str, Any]:
        count = self.images.shape[0]
        sizes, labels, weights = self._beside(number)
        batch: dict[str, Any] = {
            "image": {"pixels": images, "size": empty((count, SIDES), "int32")},
            "target": {"label": empty((count,), "int64"), "weight": empty((count,), "float32")},
            "origin": {"split": "train", "names": self._names(number)},
        }
        batch["image"]["size"][:] = sizes
        batch["target"]["label"][:] = labels
        batch["target"]["weight"][:] = weights
        return batch

    def _beside(self, number: int) -> tuple[Array, Array, Array]:
        labels = np.arange(number * self.images.shape[0], (number + 1) * self.images.shape[0])
        sizes = np.stack([labels % 1024, labels % 768], axis=1).astype(np.int32)
        return sizes, labels, (labels % 7).astype(np.float32)

    def _names(self, number: int) -> list[str]:
        count = self.images.shape[0]
        return [f"images/{row:08d}.jpg" for row in range(number * count, (number + 1) * count)]

    def touch(self, batch: dict[str, Any], number: int) -> int:
        """Read every page, check the stamps, the labels and the names at both ends."""
        count, labels, names = self.images.shape[0], batch["target"]["label"], batch["origin"]
        if labels[0] != number * count or labels[-1] != (number + 1) * count - 1:
            raise WrongResult(f"batch {number} has the labels of another")
        if names["names"][0] != f"images/{number * count:08d}.jpg":
            raise WrongResult(f"batch {number} has the names of another")
        return self.images.touch(batch["image"]["pixels"], number)

    def check(self, batch: Any, number: int) -> None:
        """Compare everything with what was to come."""
        pixels = np.asarray(batch["image"]["pixels"])
        self.images.check(pixels, number)
        sizes, labels, weights = self._beside(number)
        for what, got, expected in (
            ("size", batch["image"]["size"], sizes),
            ("label", batch["target"]["label"], labels),
            ("weight", batch["target"]["weight"], weights),
        ):
            if got.dtype != expected.dtype or not np.array_equal(got, expected):
                raise WrongResult(f"{what} of batch {number} differs from what was produced")
        origin = batch["origin"]
        if origin["split"] != "train" or list(origin["names"]) != self._names(number):
            raise WrongResult(f"the strings of batch {number} differ from what was produced")
