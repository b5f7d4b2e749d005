"""``splitpipe cache ls | prune | check``: the blocks of remote data that this machine keeps.

Responsible for: what the three commands show, and the exit code of ``check``: 0 when everything was
right, 1 when anything had to be mended.
"""

from __future__ import annotations

import re
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from splitpipe.cache import (
    BlockCache,
    CachedObject,
    CacheReport,
    check_cache,
    default_directory,
    format_nbytes,
    inventory,
    parse_nbytes,
)
from splitpipe.cache.inventory import layout_of
from splitpipe.cli.sources import AsJson, progress, say_json
from splitpipe.errors import FormatError
from splitpipe.remote.spool import remove_abandoned
from splitpipe.stores import open_store

__all__ = ["CACHE_COMMANDS", "check", "ls", "parse_age", "prune", "report_text", "table_text"]

Where = Annotated[
    Path | None,
    typer.Argument(help="The cache's folder; by default $SPLITPIPE_CACHE, or the user's own."),
]
_AGES = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def ls(
    directory: Where = None,
    objects: Annotated[
        bool, typer.Option("--objects", help="Every object, not only every store.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List what a cache holds."""
    where = _where(directory)
    found = inventory(where)
    if as_json:
        say_json(
            {
                "directory": where,
                "disk_nbytes": sum(entry.disk_nbytes for entry in found),
                "objects": [asdict(entry) for entry in found],
            }
        )
    else:
        print(table_text(where, found, objects=objects))


def prune(
    directory: Where = None,
    to: Annotated[
        str, typer.Option("--to", help="How much may stay: 10GB, 500 MiB; by default nothing.")
    ] = "0",
    older: Annotated[
        str | None,
        typer.Option("--older", help="Only what was not used for so long: 30m, 12h, 7d, 4w."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Throw out what was used longest ago; what was not used goes first, and nothing breaks.

    Folders of uploads whose writers were killed, in the one for temporary files, go too.
    """
    age = None if older is None else parse_age(older)
    nbytes = parse_nbytes(to)
    spools = remove_abandoned()  # also where there is no cache
    where = layout_of(_where(directory)).root
    with progress("throwing out"), BlockCache(where, None, requests=1) as cache:
        gone = cache.prune(nbytes, unused_for_s=age)
        left = cache.statistics().used_nbytes
    if as_json:
        told = {"directory": where, "freed_nbytes": gone, "used_nbytes": left}
        say_json({**told, "removed_spools": spools})
    else:
        for spool in spools:
            print(f"{spool}: removed, its writer was killed")
        print(f"{where}: {format_nbytes(gone)} thrown out, {format_nbytes(left)} left")


def check(
    directory: Where = None,
    compare: Annotated[
        bool,
        typer.Option("--compare", help="Compare all bytes with their stores: it reads them all."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check a cache's accounts and marks, and mend what is wrong."""
    with progress("checking") as bar:
        report = check_cache(
            _where(directory), open_store=open_store if compare else None, progress=bar.show
        )
    if as_json:
        say_json({**asdict(report), "ok": report.ok})
    else:
        print(report_text(report))
    if not report.ok:
        sys.exit(1)


CACHE_COMMANDS = (ls, prune, check)


def _where(directory: Path | None) -> str:
    return default_directory() if directory is None else str(directory)


def parse_age(text: str) -> float:
    """A length of time in seconds.

    Raises:
        FormatError: it is none.

    Example:
        >>> parse_age("90s"), parse_age("1.5h"), parse_age("7d")
        (90.0, 5400.0, 604800.0)
    """
    matched = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([smhdw])\s*", text, re.ASCII)
    if matched is None:
        raise FormatError(f"{text!r} is no length of time: write 30m, 12h, 7d or 4w")
    return float(matched[1]) * _AGES[matched[2]]


def table_text(directory: str, found: Sequence[CachedObject], *, objects: bool) -> str:
    """What is there, as lines for people: the newest last.

    Example:
        >>> entry = CachedObject("s3://b/", "a", "1", 2000, 1500, 8192, 0.0, False, "/x")
        >>> print(table_text("/c", [entry, entry], objects=False))
            16.4 kB      75% of 4.0 kB  1970-01-01 ...  s3://b/ (2 objects)
        /c: 16.4 kB on the disk
    """
    groups: dict[str, list[CachedObject]] = defaultdict(list)
    for entry in found:
        groups[f"{entry.url} {entry.key}" if objects else entry.url].append(entry)
    lines = []
    for name, entries in sorted(groups.items(), key=lambda group: _last(group[1])):
        on_disk = format_nbytes(sum(entry.disk_nbytes for entry in entries))
        size = sum(entry.size for entry in entries)
        share = sum(entry.cached_nbytes for entry in entries) / max(1, size)
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(_last(entries)))
        many = f" ({len(entries):,} objects)" if len(entries) > 1 else ""
        used = "  in use" if any(entry.in_use for entry in entries) else ""
        whole = f"{share:4.0%} of {format_nbytes(size)}"
        lines.append(f"{on_disk:>11}  {whole:>17}  {when}  {name}{many}{used}")
    total = format_nbytes(sum(entry.disk_nbytes for entry in found))
    return "\n".join([*lines, f"{directory}: {total} on the disk"])


def _last(entries: Sequence[CachedObject]) -> float:
    return max(entry.used_s for entry in entries)


def report_text(report: CacheReport) -> str:
    """A report as lines for people: what was wrong, what could not be told, and how much there is.

    Example:
        >>> report = CacheReport("/c", 2, 5, 0, 99_000, 0, 0, (), ())
        >>> print(report_text(report))
        /c: 2 objects with 5 blocks, 99.0 kB, everything is right
    """
    lines = list(report.findings)
    if report.found > len(lines):
        lines.append(f"... and {report.found - len(lines):,} more")
    lines += [f"not compared: {text}" for text in report.unreachable]
    if report.processes:
        lines.append(f"{report.processes} processes use it: its accounts were not compared")
    things = "thing was" if report.found == 1 else "things were"
    verdict = "everything is right" if report.ok else f"{report.found:,} {things} mended"
    compared = (
        f", {format_nbytes(report.compared_nbytes)} compared" if report.compared_nbytes else ""
    )
    lines.append(
        f"{report.directory}: {report.objects:,} objects with {report.blocks:,} blocks, "
        f"{format_nbytes(report.used_nbytes)}{compared}, {verdict}"
    )
    return "\n".join(lines)
