"""``splitpipe split``: one dataset into parts that are datasets.

Responsible for: the parts as the command line says them, and a conversion of each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated

import typer

from splitpipe.cli.sources import (
    AsJson,
    Bins,
    Compression,
    Dictionary,
    FormatName,
    IndexDir,
    Options,
    Overwrite,
    Target,
    Where,
    Workers,
    compression_of,
    opened,
    options_of,
    progress,
    say_json,
)
from splitpipe.conversion import ConvertOptions, convert
from splitpipe.dataset import Dataset
from splitpipe.errors import FormatError

__all__ = ["parts_of", "split"]


Parts = Annotated[str, typer.Option(help="Names and shares of the parts.")]
By = Annotated[
    str | None, typer.Option(help="Column, metadata or key that groups records, or is a time.")
]
How = Annotated[
    str | None, typer.Option(help="group keeps equal values of --by together; time cuts by it.")
]
Seed = Annotated[int, typer.Option(min=0, help="Of the shuffle before the cut.")]


def split(
    source: Where,
    target: Target,
    parts: Parts = "train=0.8,val=0.1,test=0.1",
    by: By = None,
    how: How = None,
    seed: Seed = 0,
    workers: Workers = 1,
    bins: Bins = None,
    compression: Compression = None,
    dictionary: Dictionary = False,
    overwrite: Overwrite = False,
    form: FormatName = None,
    index_dir: IndexDir = None,
    options: Options = None,
    as_json: AsJson = False,
) -> None:
    """Write disjoint parts of a dataset as datasets TARGET/NAME; called again, it goes on."""
    shares = parts_of(parts)
    writing: ConvertOptions = {
        "bins": bins,
        "compression": compression_of(compression, dictionary=dictionary),
        "overwrite": overwrite,
    }
    reports = {}
    given = options_of(options)
    with progress("indexing") as bar, opened(source, form, index_dir, given, bar) as dataset:
        views = dataset.split(shares, by=by, how=how, seed=seed)
        _check_sizes(views, parts)
        for name, view in views.items():
            reports[name] = convert(
                view, target / name, workers=workers, progress=bar.show_step, **writing
            )
    if as_json:
        say_json({name: asdict(report) for name, report in reports.items()})
        return
    for name, report in reports.items():
        print(f"{name:<11} {report.records:,} records in {report.path}, all compared, all equal")


def _check_sizes(views: Mapping[str, Dataset], parts: str) -> None:
    """Raise before anything is written if a part would be empty."""
    for name, view in views.items():
        if not len(view):
            raise FormatError(
                f"part {name!r} of {parts} would be empty: there are too few records, or groups; "
                "choose other shares"
            )


def parts_of(text: str) -> dict[str, float]:
    """The parts that a command line names.

    Example:
        >>> parts_of("train=0.9,test=.1")
        {'train': 0.9, 'test': 0.1}
    """
    parts: dict[str, float] = {}
    for part in text.split(","):
        name, _, share = part.partition("=")
        name = name.strip()
        if not name.replace("-", "_").isidentifier() or name in parts:
            raise FormatError(f"--parts must be NAME=SHARE,...: {part!r} is not, or comes twice")
        try:
            parts[name] = float(share)
        except ValueError:
            raise FormatError(f"--parts: the share of {name!r} must be a number") from None
    return parts
