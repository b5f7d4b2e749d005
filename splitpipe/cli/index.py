"""``splitpipe index``: make the index of data of another format, so that it opens at once.

Responsible for: the progress of indexing, and saying what was found.
"""

from __future__ import annotations

import time
from typing import Annotated

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

__all__ = ["index"]


def index(
    path: Where,
    workers: Annotated[
        int | None,
        typer.Option("-w", "--workers", min=1, help="Processors to use; all unless said."),
    ] = None,
    form: FormatName = None,
    index_dir: IndexDir = None,
    options: Options = None,
    as_json: AsJson = False,
) -> None:
    """Index data of another format where it lies."""
    begin = time.perf_counter()
    given = {"workers": workers, **options_of(options)}
    with progress("indexing") as bar, opened(path, form, index_dir, given, bar) as dataset:
        seconds = time.perf_counter() - begin
        found = {
            "path": str(path),
            "records": len(dataset),
            "schema": dataset.schema.to_json(),
            "skipped": getattr(dataset.records, "skipped", 0),
            "seconds": round(seconds, 3),
        }
    if as_json:
        say_json(found)
        return
    skipped = f", {found['skipped']:,} skipped" if found["skipped"] else ""
    print(f"{path}: {len(dataset):,} records{skipped}, opened in {seconds:.1f} s")
    print(f"columns     {dataset.schema!r}")
