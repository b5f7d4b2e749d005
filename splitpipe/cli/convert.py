"""``splitpipe convert``: any dataset into bins, proven equal.

Responsible for: the command line of `splitpipe.convert`.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from splitpipe.cli.console import megabytes
from splitpipe.cli.sources import AsJson, Bar, FormatName, IndexDir, Target, Where, Workers, opened
from splitpipe.conversion import ConversionReport
from splitpipe.conversion import convert as convert_dataset

__all__ = ["Bins", "Compression", "as_text", "convert"]

Bins = Annotated[int | None, typer.Option(min=1, help="How many bins share the records.")]
Compression = Annotated[
    str | None, typer.Option(help="zstd compresses every column that gains by it.")
]


def convert(
    source: Where,
    target: Target,
    workers: Workers = 1,
    bins: Bins = None,
    compression: Compression = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the dataset that is there.")
    ] = False,
    form: FormatName = None,
    index_dir: IndexDir = None,
    as_json: AsJson = False,
) -> None:
    """Copy any dataset into bins; called again, it goes on where it was."""
    with Bar("indexing") as bar, opened(source, form, index_dir, bar) as dataset:
        report = convert_dataset(
            dataset,
            target,
            workers=workers,
            progress=bar.show_step,
            bins=bins,
            compression=compression,
            overwrite=overwrite,
        )
    print(json.dumps(asdict(report)) if as_json else as_text(report))


def as_text(report: ConversionReport) -> str:
    """A report as a line for people."""
    resumed = f", {report.resumed_at:,} of them by an earlier run" if report.resumed_at else ""
    return (
        f"{report.path}: {report.records:,} records{resumed} "
        f"({megabytes(report.nbytes)} now); all {report.compared:,} compared, all equal"
    )
