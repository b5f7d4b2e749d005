"""``splitpipe top``: what the pipelines of this user do now.

Responsible for: showing the boards of running pipelines, again and again on a terminal, once or as
JSON for programs. It reads, and changes nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from splitpipe.cli.client_options import TokenFile
from splitpipe.cli.console import make_console, megabytes
from splitpipe.cli.service_top import top_of_service
from splitpipe.cli.sources import AsJson, say_json
from splitpipe.runtime.allowance import allowance
from splitpipe.runtime.board import BoardView, Heading, boards
from splitpipe.runtime.diagnosis import Diagnosis, Observation
from splitpipe.runtime.doctor import diagnose
from splitpipe.runtime.machine import CpuTimes
from splitpipe.runtime.observer import resident
from splitpipe.runtime.statistics import StageStatistics, TaskStatistics, read, since

__all__ = ["top"]

BAR = 12
"""Characters of a bar."""
_FILLS = (("█", "green"), ("░", "yellow"), ("·", "cyan"))


@dataclass(frozen=True)
class Seen:
    """A running pipeline: what its tasks did since the last look, and what holds it back."""

    heading: Heading
    tasks: tuple[TaskStatistics, ...]
    age_s: float
    diagnosis: Diagnosis


def top(
    interval: Annotated[
        float, typer.Option("--interval", "-i", min=0.1, help="Seconds between two looks.")
    ] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Look once and leave.")] = False,
    as_json: AsJson = False,
    url: Annotated[
        str | None, typer.Option("--url", help="A data service instead: what its iterations do.")
    ] = None,
    token_file: TokenFile = None,
) -> None:
    """Show what the running pipelines of this user do."""
    if url is not None:
        top_of_service(url, token_file, interval_s=interval, once=once, as_json=as_json)
        return
    looks, pause = _Looks(), threading.Event()
    if once or as_json:
        looks.look()
        pause.wait(min(interval, 1.0))  # rates are those of an interval
        seen = looks.look()
        if as_json:
            say_json({"pipelines": [_as_json(one) for one in seen]})
        else:
            make_console().print(_page(seen), soft_wrap=False)
        return
    console = Console(highlight=False)
    with Live(_page(looks.look()), console=console, screen=console.is_terminal) as live:
        while True:
            pause.wait(interval)
            live.update(_page(looks.look()), refresh=True)


class _Looks:
    """Looks at all boards, and what each was like the last time."""

    def __init__(self) -> None:
        self._earlier: dict[tuple[int, int], tuple[TaskStatistics, ...]] = {}
        self._idle = CpuTimes.now()

    def look(self) -> list[Seen]:
        """Return what has happened since the last look."""
        idle, self._idle = self._idle, CpuTimes.now()
        idle_cpus = self._idle.idle_since(idle)
        seen, now = [], {}
        with ExitStack() as stack:
            for view in boards():
                stack.enter_context(view)
                key = view.heading.pid, view.heading.run
                tasks = _statistics(view)
                now[key] = tasks
                seen.append(_seen(view.heading, tasks, self._earlier.get(key), idle_cpus))
        self._earlier = now
        return seen


def _statistics(view: BoardView) -> tuple[TaskStatistics, ...]:
    rows = view.rows()
    return read(view.heading, rows, now=time.perf_counter(), rss=resident(rows))


def _seen(
    heading: Heading,
    tasks: tuple[TaskStatistics, ...],
    earlier: tuple[TaskStatistics, ...] | None,
    idle_cpus: float | None,
) -> Seen:
    age_s = tasks[-1].elapsed_s
    recent = tasks if earlier is None else since(tasks, earlier)
    observation = Observation(
        tasks=recent, elapsed_s=recent[-1].elapsed_s, cpus=allowance().cores, idle_cpus=idle_cpus
    )
    return Seen(heading, recent, age_s, diagnose(observation))


# -- for people


def _page(seen: Sequence[Seen]) -> Group:
    if not seen:
        return Group(Text("No pipeline of this user is running."))
    parts: list[Any] = []
    for one in seen:
        heading = one.heading
        parts.append(
            Text.assemble(
                (heading.title or "python", "bold"),
                f"  pid {heading.pid}, running {_duration(one.age_s)}",
                *(f", {name} {value}" for name, value in heading.options.items()),
            )
        )
        parts.append(_table(one))
        parts.append(Text(one.diagnosis.text))
        parts.append(Text())
    return Group(*parts)


def _table(one: Seen) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("task", overflow="fold", min_width=20)
    table.add_column("█work ░in ·out", no_wrap=True)
    for heading in ("x", "items/s", "MB/s", "queued", "CPUs", "memory", "arena"):
        table.add_column(heading, justify="right", no_wrap=True)
    for task in one.tasks:
        elapsed = max(1e-9, task.elapsed_s)
        items = task.items_out if task.workers else task.items_in
        table.add_row(
            task.name,
            _bar(task),
            str(task.workers or "loop"),
            f"{items / elapsed:,.0f}",
            f"{task.nbytes / elapsed / 1e6:,.1f}" if task.workers else "",
            f"{task.queued:,}" if task.workers else "",
            f"{task.cpu_s / elapsed:.1f}",
            megabytes(task.rss_nbytes or 0),
            megabytes(task.arena_nbytes) if task.workers else "",
        )
        for stage in task.stages if len(task.stages) > 1 else ():
            if stage.share is not None:
                table.add_row(*_stage_row(stage))
    return table


def _stage_row(stage: StageStatistics) -> tuple[str, str]:
    names = ("dropped", "skipped", "retried", "quarantined")
    counted = {name: getattr(stage, name) for name in names if getattr(stage, name)}
    numbers = {**counted, **stage.measured}
    said = ", ".join(f"{name} {value:,.4g}" for name, value in numbers.items())
    return f"  {stage.name}" + (f" ({said})" if said else ""), f"{stage.share or 0.0:.0%}"


def _bar(task: TaskStatistics) -> Text:
    """How its workers spent their time: at work, waiting for input, waiting for output."""
    whole = max(1e-9, task.running_s)
    bar, left = Text(), BAR
    spent = (task.busy_s, task.wait_input_s, task.wait_output_s)
    for seconds, (fill, colour) in zip(spent, _FILLS, strict=True):
        width = max(0, min(left, round(BAR * seconds / whole)))
        bar.append(fill * width, style=colour)
        left -= width
    return bar.append(" " * left).append(f" {task.utilisation:4.0%}")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


# -- for programs


def _as_json(one: Seen) -> dict[str, Any]:
    return {
        "pid": one.heading.pid,
        "run": f"{one.heading.run:016x}",
        "title": one.heading.title,
        "started": one.heading.started,
        "age_s": one.age_s,
        "options": dict(one.heading.options),
        "tasks": [_task_as_json(task) for task in one.tasks],
        "diagnosis": {**asdict(one.diagnosis), "text": one.diagnosis.text},
    }


def _task_as_json(task: TaskStatistics) -> dict[str, Any]:
    return {**asdict(task), "busy_s": task.busy_s, "rate": task.rate}
