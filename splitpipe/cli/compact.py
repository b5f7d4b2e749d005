"""``splitpipe compact``: leave behind what was deleted or changed.

Responsible for: the command line of `splitpipe.storage.compact`.
"""

from __future__ import annotations

from dataclasses import asdict

from splitpipe.cli.console import megabytes
from splitpipe.cli.sources import AsJson, Bins, Directory, progress, say_json
from splitpipe.storage.compact import compact as compact_dataset

__all__ = ["compact"]


def compact(directory: Directory, bins: Bins = None, as_json: AsJson = False) -> None:
    """Write the live records of a dataset anew, without what is dead."""
    with progress("compacting") as bar:
        found = compact_dataset(directory, bins=bins, progress=bar.show)
    if as_json:
        say_json(asdict(found))
        return
    print(
        f"{found.path}: {found.rows:,} records, {megabytes(found.nbytes_before)} before, "
        f"{megabytes(found.nbytes_after)} now"
    )
