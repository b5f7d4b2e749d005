"""``splitpipe check``: read a whole dataset and compare every checksum.

Responsible for: the progress of a long check, the list of what is wrong, and the exit code: 0 when
everything is right, 1 when anything is wrong. Of a dataset in a store it also tells what lies
beside it that no commit names.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from splitpipe.cli.sources import AsJson, Bar, progress, say_json
from splitpipe.storage.check import CheckReport, check_dataset

__all__ = ["as_text", "check"]


def check(
    directory: Annotated[str, typer.Argument(help="The dataset's directory, or its url.")],
    as_json: AsJson = False,
) -> None:
    """Read every record of a dataset and verify it."""
    with progress("checking") as bar:
        if "://" in directory:
            report = _of_store(directory, bar)
        else:
            report = check_dataset(directory, progress=bar.show)
    if as_json:
        say_json({**asdict(report), "ok": report.ok})
    else:
        print(as_text(report))
    if not report.ok:
        sys.exit(1)


def _of_store(url: str, bar: Bar) -> CheckReport:
    from splitpipe.remote.checking import check_remote
    from splitpipe.stores import open_store

    store = open_store(url)
    try:
        return check_remote(store, progress=bar.show)
    finally:
        store.close()


def as_text(report: CheckReport) -> str:
    """A report as lines for people: what is wrong, and then how much of it there is.

    Example:
        >>> print(as_text(CheckReport(path="train", rows=3, checked=3)))
        train: 3 of 3 records read, everything is right
    """
    lines = [finding.message for finding in report.findings]
    if report.found > len(lines):
        lines.append(f"... and {report.found - len(lines):,} more")
    things = "thing is" if report.found == 1 else "things are"
    orphans = getattr(report, "orphans", ())
    if orphans:
        nbytes = sum(size for _, size in orphans)
        shown = ", ".join(key for key, _ in orphans[:5]) + (", ..." if len(orphans) > 5 else "")
        lines.append(
            f"{len(orphans):,} objects of {nbytes:,} bytes are named by no commit: of an earlier "
            f"one, or of a writer that is at work, or that died: {shown}"
        )
    verdict = "everything is right" if report.ok else f"{report.found:,} {things} wrong"
    lines.append(f"{report.path}: {report.checked:,} of {report.rows:,} records read, {verdict}")
    return "\n".join(lines)
