"""``splitpipe info``: what a dataset is, without reading its records.

Responsible for: showing the library's description of a dataset, to people and as JSON.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from splitpipe.cli.console import megabytes
from splitpipe.storage.check import Description, describe

__all__ = ["as_text", "info"]


def info(
    directory: Annotated[Path, typer.Argument(help="The dataset's directory.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Say what a dataset is: records, bytes, bins."""
    found = describe(directory)
    print(json.dumps(asdict(found)) if as_json else as_text(found))


def as_text(found: Description) -> str:
    """A description as a few lines for people."""
    mean = found.record_nbytes / found.rows if found.rows else 0.0
    lines = (
        ("path", found.path),
        ("records", f"{found.rows:,}"),
        ("bytes", f"{found.record_nbytes:,} ({megabytes(found.record_nbytes)})"),
        ("a record", f"{mean:,.1f} bytes on average"),
        ("on disk", f"{found.disk_nbytes:,} bytes ({found.overhead_nbytes:,.1f} more a record)"),
        ("bins", f"{found.bins}"),
        ("columns", ", ".join(f"{name}: {kind}" for name, kind in found.columns)),
        ("generation", f"{found.generation} of dataset {found.dataset}"),
    )
    return "\n".join(f"{name:<11} {value}" for name, value in lines)
