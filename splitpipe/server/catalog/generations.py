"""Names for states of a dataset.

Responsible for: `generation_of`, which changes with anything that changes the records of a dataset.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["generation_of", "generation_of_snapshot"]


def generation_of(row: Mapping[str, Any], pinned: Sequence[Mapping[str, Any]]) -> str:
    """Stands for everything that says which records a dataset has now."""
    sets = [(one["name"], one["generation"], one["columns"]) for one in pinned]
    told = repr((row["id"], row["uid_column"], row["join_rule"], sets))
    return hashlib.sha256(told.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def generation_of_snapshot(snapshot: Mapping[str, Any]) -> str:
    """The same of a dataset that was pinned."""
    dataset = snapshot["dataset"]
    return generation_of({**dataset, "join_rule": dataset["join"]}, snapshot["column_sets"])
