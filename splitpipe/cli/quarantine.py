"""``splitpipe quarantine``: what was left out, and whether it passes now.

Responsible for: showing a quarantine file, in short or item by item, and making its items once more
with ``--run``. It changes nothing.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from inspect import signature
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table

from splitpipe.cli.console import make_console
from splitpipe.cli.sources import AsJson, say_json
from splitpipe.cli.target import load_object
from splitpipe.errors import FormatError
from splitpipe.pipeline.builder import Pipeline
from splitpipe.pipeline.stages.failed import FailedItem
from splitpipe.runtime.quarantine import Quarantine
from splitpipe.runtime.rerun import Rerun, rerun

__all__ = ["quarantine"]

File = Annotated[Path, typer.Argument(help="The file that on_error=sp.quarantine(FILE) wrote.")]


def quarantine(
    file: File,
    run: Annotated[
        str | None,
        typer.Option(
            "--run",
            metavar="MODULE:PIPELINE",
            help="Make these items again with this pipeline; exit code 1 if one fails still.",
        ),
    ] = None,
    stage: Annotated[str | None, typer.Option(help="Only items that failed in this stage.")] = None,
    examples: Annotated[
        int, typer.Option("-n", "--examples", min=0, help="Items to show of each kind of failure.")
    ] = 3,
    tracebacks: Annotated[
        bool, typer.Option("--tracebacks", help="Show where each of them was raised.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the items that failed and were left out, or try them again."""
    found = Quarantine.read(file)
    items = [item for item in found.items if stage is None or item.stage == stage]
    if run is not None:
        _try_again(rerun(items, _pipeline(run)), as_json=as_json)
    elif as_json:
        torn = {"lines": found.lines, "torn": found.torn}
        say_json({"path": str(file), **torn, "items": [asdict(item) for item in items]})
    else:
        _show(file, found, items, examples, tracebacks=tracebacks)


def _pipeline(text: str) -> Pipeline | Mapping[str, Pipeline]:
    """Return the pipeline of that name: it, a dict of several, or a function that makes it."""
    made = load_object(text)
    if callable(made) and not isinstance(made, Pipeline):
        try:
            signature(made).bind()
        except TypeError as error:
            raise FormatError(f"{text} cannot be called without arguments: {error}") from error
        made = made()
    several = isinstance(made, Mapping) and all(isinstance(one, Pipeline) for one in made.values())
    if not (isinstance(made, Pipeline) or (several and made)):
        raise FormatError(
            f"{text} is a {type(made).__name__}; name a pipeline, a dict of pipelines, or a "
            "function without arguments that returns one"
        )
    return made


def _show(
    file: Path,
    found: Quarantine,
    items: Sequence[FailedItem],
    examples: int,
    *,
    tracebacks: bool,
) -> None:
    console = make_console()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading, justify in (("stage", "left"), ("error", "left"), ("items", "right")):
        table.add_column(heading, justify=justify, overflow="fold")  # type: ignore[arg-type]
    table.add_column("for example", overflow="fold")
    kinds = _by_kind(items)
    for (stage, error), members in kinds.items():
        table.add_row(stage, error, f"{len(members):,}", _example(members[0]))
    torn = f", {found.torn:,} torn lines of killed writers" if found.torn else ""
    runs = len({item.run for item in items})
    console.print(f"{file}: {len(items):,} items of {runs} runs{torn}", markup=False)
    if items:
        console.print(table, soft_wrap=False)
    for (stage, error), members in kinds.items():
        if examples:
            console.print(f"{stage}, {error}:", markup=False)
        for item in members[:examples]:
            console.print(f"  {_where(item)}: {item.message}", markup=False)
            if tracebacks and item.traceback:
                text = "\n".join(f"    {line}" for line in item.traceback.splitlines())
                console.print(text, markup=False)


def _by_kind(items: Iterable[FailedItem]) -> dict[tuple[str, str], list[FailedItem]]:
    """Return items by stage and type of error, the commonest first."""
    kinds: dict[tuple[str, str], list[FailedItem]] = defaultdict(list)
    for item in items:
        kinds[item.stage, item.error].append(item)
    return dict(sorted(kinds.items(), key=lambda kind: -len(kind[1])))


def _where(item: FailedItem) -> str:
    """Return which item it is.

    Example:
        >>> _where(FailedItem("decode", 2, 7, record=31, key="cat.jpg", source="Dataset('train')"))
        "epoch 2, item 7, record 31 (key 'cat.jpg') of Dataset('train')"
    """
    part = f" (part {item.part})" if item.part else ""
    text = f"epoch {item.epoch}, item {item.position}{part}"
    if item.record is not None:
        key = f" (key {item.key!r})" if item.key is not None else ""
        return f"{text}, record {item.record}{key} of {item.source}"
    return f"{text} of {item.source}" if item.source else text


def _example(item: FailedItem, longest: int = 60) -> str:
    text = " ".join(item.message.split())
    return text if len(text) <= longest else f"{text[:longest]}..."


def _try_again(runs: Iterable[Rerun], *, as_json: bool) -> None:
    """Say what becomes of each item, and leave with exit code 1 if one fails."""
    counts: Counter[str] = Counter()
    made: list[dict[str, Any]] = []
    console = make_console()
    for one in runs:
        counts[one.outcome] += 1
        if as_json:
            error = None if one.error is None else asdict(one.error)
            made.append({"item": asdict(one.item), "outcome": one.outcome, "error": error})
            continue
        now = "" if one.error is None else f": {one.error.error}: {one.error.message}"
        console.print(f"{one.outcome:<6}  {one.item.stage}, {_where(one.item)}{now}", markup=False)
    summary = {name: counts[name] for name in ("passes", "fails", "absent")}
    if as_json:
        say_json({**summary, "items": made})
    else:
        words = ", ".join(f"{count:,} {name}" for name, count in summary.items())
        console.print(f"{sum(counts.values()):,} items made again: {words}", markup=False)
    if counts["fails"]:
        sys.exit(1)
