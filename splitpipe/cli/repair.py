"""``splitpipe repair``: make a lost or damaged index again from the bins alone.

Responsible for: the command line of `splitpipe.storage.repair`, and the exit code: 0 when every
record is there, 1 when some are lost.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict

from splitpipe.cli.sources import AsJson, Directory, progress, say_json
from splitpipe.storage.repair import Repaired
from splitpipe.storage.repair import repair as repair_dataset

__all__ = ["as_text", "repair"]

_SHOWN = 20


def repair(directory: Directory, as_json: AsJson = False) -> None:
    """Make lost or damaged indices again from the bins."""
    with progress("reading bins") as bar:
        found = repair_dataset(directory, progress=bar.show)
    ok = not (found.lost or found.blank or found.doubtful)
    if as_json:
        say_json({**asdict(found), "ok": ok})
    else:
        print(as_text(found))
    if not ok:
        sys.exit(1)


def as_text(found: Repaired) -> str:
    """What was repaired and what is lost, as lines for people."""
    return "\n".join(_lines(found))


def _lines(found: Repaired) -> Iterator[str]:
    if not found.columns:
        yield f"{found.path}: no index is damaged, nothing was changed"
    else:
        names = ", ".join(found.columns)
        yield f"{found.path}: index of {names} made again, generation {found.generation}"
    for column, row in found.lost[:_SHOWN]:
        yield f"lost        column {column!r} of record {row}"
    if len(found.lost) > _SHOWN:
        yield f"lost        and {len(found.lost) - _SHOWN:,} more"
    if found.blank:
        yield f"missing     {found.blank:,} values that not even the index knew are None now"
    if found.doubtful:
        yield (
            "doubtful    updated records are damaged and no index says whose they are: some "
            "records may be what they were before an update"
        )
