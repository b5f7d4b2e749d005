"""Every case, in the order of the report."""

from __future__ import annotations

from benchmarks.base import Case
from benchmarks.cases import (
    batches,
    catalog,
    cold,
    columns,
    compression,
    graphs,
    indexing,
    latency,
    opening,
    packing,
    seeing,
    starting,
    storage,
    tails,
    threads,
    throughput,
    tokens,
    tuning,
)

__all__ = ["CASES"]

CASES: dict[str, Case] = {
    case.name: case
    for module in (
        storage,
        batches,
        columns,
        catalog,
        compression,
        opening,
        cold,
        indexing,
        tokens,
        throughput,
        threads,
        graphs,
        packing,
        seeing,
        latency,
        tails,
        tuning,
        starting,
    )
    for case in module.CASES
}
