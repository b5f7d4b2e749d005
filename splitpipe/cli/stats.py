"""``splitpipe stats``: what the values of each column are like.

Responsible for: showing a summary of a dataset, to people and as JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated

import numpy as np
import typer

from splitpipe.cli.sources import (
    AsJson,
    FormatName,
    IndexDir,
    Options,
    Where,
    opened,
    options_of,
    progress,
    say_json,
)
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
    options: Options = None,
    as_json: AsJson = False,
) -> None:
    """Say how the values of each column are spread."""
    given = options_of(options)
    with progress("indexing") as bar, opened(path, form, index_dir, given, bar) as dataset:
        found = summarise(
            dataset,
            sample=sample or None,
            seed=seed,
            progress=lambda done, total: bar.show_step("reading", done, total),
        )
    if as_json:
        say_json(found.to_json())
    else:
        print(as_text(found))


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
    if not column.values:
        return
    yield f"  {'bytes':<8} {_histogram(column.nbytes)}"
    if column.numbers is not None and column.numbers.count:
        kind = np.timedelta64 if "timedelta" in column.type else np.datetime64
        unit = column.unit

        def shown(number: float) -> str:
            return f"{number:,.6g}" if unit is None else str(kind(round(number), unit))  # type: ignore[call-overload]

        yield f"  {'numbers':<8} {_histogram(column.numbers, shown)}"
    for what, pairs in (
        ("shapes", column.shapes),
        ("common", column.common),
        ("members", column.members),
    ):
        if pairs:
            yield f"  {what:<8} " + ", ".join(f"{value!r} x {times:,}" for value, times in pairs)


def _histogram(found: Histogram, shown: Callable[[float], str] = "{:,.6g}".format) -> str:
    """A histogram on one line.

    Example:
        >>> import numpy as np
        >>> _histogram(Histogram.of(np.array([1.0, 1.0, 2.0, 11.0])))
        '1 to 11, mean 3.75, median 1.5  |█▄       ▄|'
        >>> _histogram(Histogram.of(np.array([8, 8])))
        '8'
    """
    if found.least is None or found.most is None:
        return "no finite value"
    lost = f", {found.not_finite:,} not finite" if found.not_finite else ""
    if found.least == found.most:
        return shown(found.least) + lost
    highest = max(1, *found.counts)
    bars = "".join(_BLOCKS[-(-8 * count // highest)] for count in found.counts)
    mean = "" if found.mean is None else f", mean {shown(found.mean)}"
    median = f", median {shown(found.quantiles[2])}" if found.quantiles else ""
    return f"{shown(found.least)} to {shown(found.most)}{mean}{median}{lost}  |{bars}|"
