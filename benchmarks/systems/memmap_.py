"""The bound of a batch of rows: numpy's own gather from a memory map of the same rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["MemmapStorage"]


class _Reader:
    def __init__(self, directory: Path) -> None:
        # Through a plain array: a memmap makes every result a memmap again, in Python.
        self._rows = np.asarray(np.load(directory / "rows.npy", mmap_mode="r"))

    def rows(self, indices: Any, out: Any) -> Any:
        """A new array each time: numpy takes longer to fill one that is given."""
        return self._rows[indices]

    def close(self) -> None:
        del self._rows


class MemmapStorage:
    """One file of rows, without a checksum."""

    def write_rows(self, directory: Path, rows: Any) -> None:
        """As `numpy.save` does it."""
        np.save(directory / "rows.npy", rows)

    def open_rows(self, directory: Path) -> _Reader:
        """Map it."""
        return _Reader(directory)
