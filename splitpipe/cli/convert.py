"""``splitpipe convert``: any dataset into bins, or into another library's format, proven equal.

Responsible for: the command line of `splitpipe.convert` and `splitpipe.export`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

import typer

from splitpipe.cli.console import megabytes
from splitpipe.cli.sources import (
    AsJson,
    Bar,
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
from splitpipe.dataset import Dataset
from splitpipe.errors import FormatError
from splitpipe.integrations.exports import ExportReport, export

__all__ = ["as_text", "convert"]

To = Annotated[
    str | None,
    typer.Option(help="mds, webdataset, parquet or hf (load_from_disk) instead of bins."),
]
ShardNbytes = Annotated[
    int | None, typer.Option(min=1, help="With --to: about how large a file becomes.")
]
Keys = Annotated[
    str | None,
    typer.Option(
        help="With --to: the column that keys become; __key__ names webdataset's samples."
    ),
]
Metas = Annotated[
    str | None, typer.Option(help="With --to: the column that metadata becomes, as JSON.")
]


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
    to: To = None,
    shard_nbytes: ShardNbytes = None,
    keys: Keys = None,
    metas: Metas = None,
    as_json: AsJson = False,
) -> None:
    """Copy any dataset into bins and prove the copy equal; called again, it goes on."""
    how = compression_of(compression, dictionary=dictionary)
    given = options_of(options)
    if to is not None and (bins is not None or dictionary):
        raise FormatError("--bins and --dictionary are for bins: leave them out with --to")
    if to is None and (keys or metas):
        raise FormatError("--keys and --metas go with --to: bins have keys and metadata as such")
    if to is None and shard_nbytes is not None:
        raise FormatError("--shard-nbytes goes with --to: bins are counted by --bins")
    with progress("indexing") as bar, opened(source, form, index_dir, given, bar) as dataset:
        if to is not None:
            written: dict[str, Any] = {"compression": compression, "overwrite": overwrite}
            written |= {"keys": keys, "metas": metas}
            written |= {} if shard_nbytes is None else {"shard_nbytes": shard_nbytes}
            _export(dataset, str(target), to, workers, written, bar, as_json=as_json)
            return
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


def _export(
    dataset: Dataset,
    target: str,
    to: str,
    workers: int,
    options: Mapping[str, Any],
    bar: Bar,
    *,
    as_json: bool,
) -> None:
    report = export(dataset, target, to, workers=workers, progress=bar.show_step, **options)
    if as_json:
        say_json(asdict(report))
    else:
        print(_export_as_text(report))


def _export_as_text(report: ExportReport) -> str:
    changed = "".join(f"; column {name} is {what} there" for name, what in report.changed.items())
    left_out = "".join(f"; {what} are left out" for what in report.left_out)
    return (
        f"{report.path}: {report.records:,} records in {report.files} files of {report.to} "
        f"({megabytes(report.nbytes)}), all read again, all equal{changed}{left_out}"
    )


def as_text(report: ConversionReport) -> str:
    """A report as a line for people."""
    resumed = f", {report.resumed_at:,} of them by earlier runs" if report.resumed_at else ""
    skipped = f"; {report.skipped:,} broken ones left out" if report.skipped else ""
    return (
        f"{report.path}: {report.records:,} records{resumed} ({megabytes(report.nbytes)} now), "
        f"all compared, all equal{skipped}"
    )
