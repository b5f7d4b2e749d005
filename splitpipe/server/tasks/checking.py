"""Reading everything of a dataset, to see whether it can be read.

Responsible for: the work of the task ``check``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from splitpipe.server.catalog.snapshot import open_snapshot

__all__ = ["perform"]

_BLOCK: Final = 256
_MOST_PROBLEMS: Final = 100


def perform(job: dict[str, Any], progress: Callable[..., None]) -> dict[str, Any]:
    """Read every value of every record.

    Returns:
        ``records``, how many there are; ``unreadable``, how many of them cannot be read; and
        ``problems``, the first of those with ``row``, ``column`` and ``error``.
    """
    problems: list[dict[str, Any]] = []
    unreadable: set[int] = set()
    with open_snapshot(job["snapshot"]) as dataset:
        count = len(dataset)
        for start in range(0, count, _BLOCK):
            rows = np.arange(start, min(start + _BLOCK, count), dtype=np.int64)
            for name in dataset.schema:
                for row, error in _bad(dataset.records, rows, name):
                    unreadable.add(row)
                    if len(problems) < _MOST_PROBLEMS:
                        told = f"{type(error).__name__}: {error}"
                        problems.append({"row": row, "column": name, "error": told})
            progress(int(rows[-1]) + 1, count)
    return {"records": count, "unreadable": len(unreadable), "problems": problems}


def _bad(records: Any, rows: Any, name: str) -> list[tuple[int, Exception]]:
    """Rows of a column that cannot be read: halves are read together until one is alone."""
    try:
        records.read(rows, [name])
    except Exception as error:
        if len(rows) == 1:
            return [(int(rows[0]), error)]
        half = len(rows) // 2
        return [*_bad(records, rows[:half], name), *_bad(records, rows[half:], name)]
    return []
