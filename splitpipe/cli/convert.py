"""``splitpipe convert``: any dataset into bins, proven equal.

Responsible for: the command line of `splitpipe.convert`.
"""

from __future__ import annotations

from dataclasses import asdict

from splitpipe.cli.console import megabytes
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
from splitpipe.conversion import ConversionReport
from splitpipe.conversion import convert as convert_dataset

__all__ = ["as_text", "convert"]


def convert(
    source: Where,
    target: Target,
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
    """Copy any dataset into bins and prove the copy equal; called again, it goes on."""
    how = compression_of(compression, dictionary=dictionary)
    given = options_of(options)
    with progress("indexing") as bar, opened(source, form, index_dir, given, bar) as dataset:
        report = convert_dataset(
            dataset,
            target,
            workers=workers,
            progress=bar.show_step,
            bins=bins,
            compression=how,
            overwrite=overwrite,
        )
    if as_json:
        say_json(asdict(report))
    else:
        print(as_text(report))


def as_text(report: ConversionReport) -> str:
    """A report as a line for people."""
    resumed = f", {report.resumed_at:,} of them by earlier runs" if report.resumed_at else ""
    skipped = f"; {report.skipped:,} broken ones left out" if report.skipped else ""
    return (
        f"{report.path}: {report.records:,} records{resumed} ({megabytes(report.nbytes)} now), "
        f"all compared, all equal{skipped}"
    )
