"""Every case, in the order of the report."""

from __future__ import annotations

from benchmarks.base import Case
from benchmarks.cases import (
    batches,
    cold,
    indexing,
    latency,
    starting,
    storage,
    throughput,
    tokens,
)

__all__ = ["CASES"]

CASES: dict[str, Case] = {
    case.name: case
    for module in (storage, batches, cold, indexing, tokens, throughput, latency, starting)
    for case in module.CASES
}
