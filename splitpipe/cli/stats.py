"""``splitpipe stats``: what the values of each column are like.

Responsible for: showing a summary of a dataset, to people and as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated

import typer

from splitpipe.cli.sources import AsJson, Bar, FormatName, IndexDir, Where, opened
from splitpipe.summary import ColumnSummary, Histogram, Summary, summarise

__all__ = ["as_text", "stats"]

_BLOCKS = " ▁▂▃▄▅▆▇█"


def stats(
    path: Where,
    sample: Annotated[
        int, typer.Option("-n", "--sample", min=0, help="Records to look at; 0 for all.")
    ] = 10_000,
    seed: Annotated[int, typer.Option(help="Which records are looked at.")] = 0,
    form: FormatName = None,
    index_dir: IndexDir = None,
    as_json: AsJson = False,
) -> None:
    """Say how the values of each column are spread."""
    with Bar("indexing") as bar, opened(path, form, index_dir, bar) as dataset:
        found = summarise(dataset, sample=sample or None, seed=seed)
    print(json.dumps(asdict(found)) if as_json else as_text(found))


def as_text(found: Summary) -> str:
    """A summary as lines for people."""
    return "\n".join(_lines(found))


def _lines(found: Summary) -> Iterator[str]:
    part = "all" if found.looked_at == found.records else f"a sample of {found.looked_at:,}"
    yield f"{found.path}: {found.records:,} records, {part} looked at"
    for column in found.columns:
        yield ""
        yield from _column(column)


def _column(column: ColumnSummary) -> Iterator[str]:
    missing = f", {column.missing:,} missing" if column.missing else ""
    yield f"{column.name}: {column.type}, {column.values:,} values{missing}"
    yield f"  {'bytes':<8} {_histogram(column.nbytes)}"
    if column.numbers is not None:
        yield f"  {'numbers':<8} {_histogram(column.numbers)}"
    for what, pairs in (("shapes", column.shapes), ("common", column.common)):
        if pairs:
            yield f"  {what:<8} " + ", ".join(f"{value!r} x {times:,}" for value, times in pairs)


def _histogram(found: Histogram) -> str:
    """A histogram on one line.

    Example:
        >>> import numpy as np
        >>> _histogram(Histogram.of(np.array([1.0, 1.0, 2.0, 11.0])))
        '1 to 11, mean 3.75, median 1.5  |█▄       ▄|'
    """
    if found.least is None or found.most is None:
        return "no finite value" if found.count else "none"
    highest = max(found.counts)
    bars = "".join(_BLOCKS[-(-8 * count // highest)] for count in found.counts)
    lost = f", {found.not_finite:,} not finite" if found.not_finite else ""
    return (
        f"{found.least:,.6g} to {found.most:,.6g}, mean {found.mean:,.6g}, median "
        f"{found.quantiles[2]:,.6g}{lost}  |{bars}|"
    )
