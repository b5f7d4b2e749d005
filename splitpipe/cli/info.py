"""``splitpipe info``: what a dataset is, without reading its records.

Responsible for: showing the library's description of a dataset, to people and as JSON.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import splitpipe as sp
from splitpipe.cli.console import megabytes
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
from splitpipe.formats.base import Source
from splitpipe.formats.recognise import which
from splitpipe.storage import files
from splitpipe.storage.check import Description, describe
from splitpipe.storage.format import MANIFEST_NAME

__all__ = ["as_text", "info"]


def info(
    path: Where,
    form: FormatName = None,
    index_dir: IndexDir = None,
    options: Options = None,
    as_json: AsJson = False,
) -> None:
    """Say what a dataset is: records, bytes, columns, bins."""
    if form is None and _is_ours(path):
        found = describe(path)
        if as_json:
            say_json({"format": "splitpipe", **asdict(found)})
        else:
            print(as_text(found))
        return
    given = options_of(options)
    with progress("indexing") as bar, opened(path, form, index_dir, given, bar) as dataset:
        facts = _facts(path, form, dataset)
        plan = dataset.plan() if isinstance(dataset, sp.RawDataset) else None
    if as_json:
        say_json(facts if plan is None else {**facts, "plan": asdict(plan)})
    else:
        print(_facts_as_text(facts) if plan is None else plan)


def _is_ours(path: Path) -> bool:
    """Whether our own description applies, also of a folder that is not there or holds nothing."""
    return files.is_there(os.path.join(path, MANIFEST_NAME)) or not path.exists()


def as_text(found: Description) -> str:
    """A description as a few lines for people."""
    return "\n".join(f"{name:<11} {value}" for name, value in _lines(found))


def _lines(found: Description) -> Iterator[tuple[str, str]]:
    mean = found.record_nbytes / found.rows if found.rows else 0.0
    yield "path", found.path
    yield "records", f"{found.rows:,}" + (f" ({found.deleted:,} deleted)" if found.deleted else "")
    yield "bytes", f"{found.record_nbytes:,} ({megabytes(found.record_nbytes)})"
    yield "a record", f"{mean:,.1f} bytes on average"
    yield "on disk", f"{found.disk_nbytes:,} bytes ({found.overhead_nbytes:,.1f} more a record)"
    if found.dead_nbytes:
        yield "dead", f"{found.dead_nbytes:,} bytes, which `splitpipe compact` gives back"
    yield "bins", f"{found.bins}"
    if len(found.details) == 1 and not found.details[0].missing:
        yield "columns", ", ".join(f"{name}: {kind}" for name, kind in found.columns)
    else:
        for number, column in enumerate(found.details):
            missing = f", {column.missing:,} missing" if column.missing else ""
            yield (
                "" if number else "columns",
                f"{column.name}: {column.type}, {megabytes(column.nbytes)}{missing}",
            )
    if found.metadata is not None:
        declared = ", ".join(f"{name}: {kind}" for name, kind in found.metadata.items())
        yield "catalog", f"keys and metadata{f'; declared {declared}' if declared else ''}"
    yield "generation", f"{found.generation} of dataset {found.dataset}"


def _facts(path: Path, form: str | None, dataset: sp.Dataset) -> dict[str, Any]:
    """What can be said of data of another format."""
    records = dataset.records
    return {
        "path": str(path),
        "format": form or which(Source.at(path)).name,
        "records": len(dataset),
        "columns": {name: field.description for name, field in dataset.schema.items()},
        "bare": dataset.schema.bare,
        "skipped": getattr(records, "skipped", 0),
        "catalog": records.catalog is not None,
    }


def _facts_as_text(facts: dict[str, Any]) -> str:
    lines = [
        ("path", facts["path"]),
        ("format", f"{facts['format']}, read in place"),
        ("records", f"{facts['records']:,}"),
    ]
    if facts["skipped"]:
        lines.append(("skipped", f"{facts['skipped']:,}"))
    for number, (name, kind) in enumerate(facts["columns"].items()):
        shown = kind if facts["bare"] else f"{name}: {kind}"
        lines.append(("" if number else "columns", shown))
    if facts["catalog"]:
        lines.append(("catalog", "keys and metadata"))
    return "\n".join(f"{name:<11} {value}" for name, value in lines)
