"""``splitpipe top --url``: what the iterations and tasks of a data service do now.

Responsible for: the same numbers that the page shows, at a terminal.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from splitpipe.cli.client import connected
from splitpipe.cli.console import make_console
from splitpipe.cli.sources import say_json

if TYPE_CHECKING:
    from splitpipe.client import Client

__all__ = ["top_of_service"]

BAR = 24
"""Characters of a bar."""
_SHOWN = 10
"""Iterations that are shown in full."""
_OVER = frozenset({"done", "failed", "stopped"})

Json = Mapping[str, Any]


def top_of_service(
    url: str, token_file: Path | None, *, interval_s: float, once: bool, as_json: bool
) -> None:
    """Show a service once, or again and again until Ctrl-C.

    Args:
        url: of the server.
        token_file: a file with the token.
        interval_s: between two looks.
        once: whether one look is enough.
        as_json: whether it is for a program.
    """
    with connected(url, token_file) as client:
        told = _look(client)
        if as_json:
            say_json(told)
        elif once:
            make_console().print(_page(url, told), soft_wrap=False)
        else:
            console, pause = Console(highlight=False), threading.Event()
            with Live(_page(url, told), console=console, screen=console.is_terminal) as live:
                while not pause.wait(interval_s):
                    live.update(_page(url, _look(client)), refresh=True)


def _look(client: Client) -> dict[str, Any]:
    return {"iterations": client.iterations.list(), "tasks": client.tasks.list()}


def _page(url: str, told: Json) -> Group:
    iterations: Sequence[Json] = told["iterations"]
    running = [one for one in iterations if one["status"] not in _OVER]
    tasks = [one for one in told["tasks"] if one["status"] in ("queued", "running", "aborting")]
    parts: list[Any] = [
        Text.assemble(
            (url, "bold"),
            f"  {len(running)} of {len(iterations)} iterations under way, {len(tasks)} tasks",
        )
    ]
    for one in running[:_SHOWN]:
        parts += _iteration(one)
    over = [one for one in iterations if one["status"] in _OVER]
    if over:
        parts.append(_table(over[:_SHOWN]))
    for task in tasks:
        progress = task["progress"] or {}
        done, total = progress.get("done"), progress.get("total")
        said = f"task {task['id']}  {task['kind']}  {task['status']}"
        parts.append(Text(f"{said}  {done or 0:,} of {total:,}" if total else said))
    return Group(*parts)


def _iteration(one: Json) -> list[Any]:
    progress: Json = one["progress"] or {}
    batches: Json = progress.get("batches") or {}
    done, expected = batches.get("completed") or 0, batches.get("expected")
    counts = (("completed", "completed"), ("filtered", "filtered"), ("failed", "failed"))
    said = ", ".join(f"{progress.get(key) or 0:,} {word}" for key, word in counts)
    line = Text.assemble(
        "\n", (str(one["name"] or one["id"]), "bold"), f"  {one['dataset']}  {one['status']}  "
    )
    if expected:
        filled = min(BAR, round(BAR * done / expected))
        line.append("█" * filled, style="green").append("·" * (BAR - filled))
        line.append(f" {done:,} of {expected:,} batches")
    held = progress.get("in_progress") or {}
    clients = progress.get("clients_total") or 0
    parts: list[Any] = [
        line,
        Text(f"{said}; {progress.get('rate') or 0:,.0f} samples/s to {clients} clients"),
    ]
    if held:
        ranks = ", ".join(f"rank {rank}: {samples:,}" for rank, samples in held.items())
        parts.append(Text(f"in progress: {ranks}"))
    parts += _stages(progress.get("stages") or ())
    if progress.get("doctor"):
        parts.append(Text(str(progress["doctor"])))
    if one["error"]:
        parts.append(Text(str(one["error"]), style="red"))
    return parts


def _stages(stages: Iterable[Json]) -> list[Text]:
    """How each stage spends its time: at work, waiting for input, waiting for output."""
    lines = []
    for stage in stages:
        shares = [float(stage.get(key) or 0.0) for key in ("busy", "waiting_in", "waiting_out")]
        whole = max(1e-9, sum(shares))
        bar = Text("  ")
        for share, fill, colour in zip(shares, "█░·", ("green", "yellow", "cyan"), strict=True):
            bar.append(fill * round(12 * share / whole), style=colour)
        lines.append(bar.append(f"  {stage['name']}"))
    return lines


def _table(over: Sequence[Json]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("iteration", "dataset", "status"):
        table.add_column(heading, overflow="fold")
    for heading in ("completed", "filtered", "failed"):
        table.add_column(heading, justify="right")
    for one in over:
        progress = one["progress"] or {}
        counts = [f"{progress.get(key) or 0:,}" for key in ("completed", "filtered", "failed")]
        table.add_row(str(one["name"] or one["id"]), one["dataset"], one["status"], *counts)
    return table
