"""``splitpipe run``: a job of the user's program, from here to its end.

Responsible for: the command line of `splitpipe.Job`: its progress, its summary, and what is said
when it ends early.
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from splitpipe.cli.live import live_bar
from splitpipe.cli.sources import AsJson, say_json
from splitpipe.cli.target import load_object
from splitpipe.errors import FormatError, SplitpipeError
from splitpipe.jobs import Job, JobProgress, JobSummary, Preview
from splitpipe.jobs.define import JobRunOptions

__all__ = ["as_text", "run_job"]

LINE_S = 10.0
"""Seconds between two lines, where there is no terminal."""
_SHOWN = 300

Which = Annotated[
    str, typer.Argument(metavar="MODULE:JOB", help="Where the job is, or PATH/FILE.py:JOB.")
]
Workers = Annotated[
    int | None,
    typer.Option(
        "-w", "--workers", min=0, help="Processes that work; 0 is this one. As many as pay."
    ),
]
Limit = Annotated[
    int | None, typer.Option(min=0, help="End after the first so many records of the source.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be done, and try a few records.")
]
Restart = Annotated[bool, typer.Option("--restart", help="Begin anew, and replace what is there.")]
Executor = Annotated[
    str, typer.Option(help="What works: process, thread, or ray (actors of a cluster).")
]
OnError = Annotated[
    str | None,
    typer.Option(help="raise, skip, or quarantine:PATH; as the job says unless given."),
]


def run_job(
    job: Which,
    workers: Workers = None,
    limit: Limit = None,
    dry_run: DryRun = False,
    restart: Restart = False,
    on_error: OnError = None,
    executor: Executor = "process",
    as_json: AsJson = False,
) -> None:
    """Run a job: a pipeline whose output is a dataset, or a column; called again, it goes on."""
    found = _job(job)
    options: JobRunOptions = {
        "workers": "auto" if workers is None else workers,
        "limit": limit,
        "restart": restart,
        "on_error": on_error,
        "executor": executor,
    }
    if dry_run:
        _dry_run(found, options, as_json=as_json)
        return
    try:
        rate = TextColumn("{task.fields[rate]}")
        columns = (BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
        with live_bar(*columns) as bar:
            options["progress"] = _Meter(bar).show
            summary = found.run(**options)
    except (KeyboardInterrupt, SystemExit, SplitpipeError) as error:
        for note in getattr(error, "__notes__", [])[-1:]:
            print(f"splitpipe: {note}", file=sys.stderr)
        raise
    if as_json:
        say_json(summary.to_json())
    else:
        print(as_text(summary))


def _dry_run(job: Job, options: JobRunOptions, *, as_json: bool) -> None:
    told = job.preview(**options)
    if as_json:
        say_json(_preview_as_json(told))
    else:
        print(_preview_as_text(told))


def _job(text: str) -> Job:
    found = load_object(text, "job")
    if not isinstance(found, Job) and callable(found):
        found = found()
    if not isinstance(found, Job):
        raise FormatError(
            f"{text} is a {type(found).__name__}, not a job: make one with sp.Job(pipeline, "
            "output), or with @sp.job(output) before a function that returns a pipeline"
        )
    return found


class _Meter:
    """Shows how far a job is: a bar on a terminal, else a line now and then. On stderr."""

    def __init__(self, bar: Progress | None) -> None:
        self._bar = bar
        self._began = self._last = time.perf_counter()

    def show(self, progress: JobProgress) -> None:
        """Show how far it is."""
        now = time.perf_counter()
        rate = progress.counts.read / max(1e-9, now - self._began)
        said = f"{rate:,.0f} records/s"
        if progress.counts.skipped:
            said += f", {progress.counts.skipped:,} skipped"
        if self._bar is not None:
            if not self._bar.task_ids:
                before = progress.made - progress.counts.read
                self._bar.add_task("", total=progress.stop, completed=before, rate="")
            what = f"{progress.done:,} committed"
            task = self._bar.task_ids[0]
            self._bar.update(task, completed=progress.made, description=what, rate=said)
        elif now - self._last >= LINE_S:
            self._last = now
            left = (progress.stop - progress.made) / max(1e-9, rate)
            share = progress.made / max(1, progress.stop)
            print(
                f"{share:4.0%}  {progress.made:,} of {progress.stop:,} records, "
                f"{progress.done:,} committed, {said}, {_duration(left)} left",
                file=sys.stderr,
                flush=True,
            )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


# -- for people


def as_text(summary: JobSummary) -> str:
    """A summary as lines for people."""
    what = summary.output
    if summary.column is not None:
        what += f", column {summary.column!r}"
    state = "finished" if summary.finished else "not finished"
    lines = [f"{what}: {summary.done:,} of {summary.records:,} records done, {state}"]
    if summary.counts.read:
        lines.append(
            f"this run: {_counted(summary.counts)}; {summary.tasks:,} tasks in "
            f"{summary.elapsed_s:.1f} s, {summary.rate:,.0f} records/s"
        )
    if summary.resumed_at:
        lines.append(
            f"all runs: {_counted(summary.total)}; this one began at record {summary.resumed_at:,}"
        )
    lines += [f"skipped: {fault}" for fault in summary.faults]
    more = summary.counts.skipped - len(summary.faults)
    if summary.faults and more > 0:
        lines.append(f"and {more:,} more were skipped")
    return "\n".join(lines)


def _counted(counts: Any) -> str:
    return (
        f"{counts.read:,} read = {counts.used:,} used + {counts.filtered:,} filtered + "
        f"{counts.skipped:,} skipped; {counts.written:,} written"
    )


def _preview_as_text(told: Preview) -> str:
    where = told.output if told.column is None else f"{told.output}, column {told.column!r}"
    lines = [
        f"pipeline: {told.pipeline}",
        f"output: {where}: {told.state}",
        f"to do: records {told.start:,} to {told.stop:,} of {told.records:,}, in {told.tasks:,} "
        f"tasks of {told.task:,}",
    ]
    if told.schema is not None:
        lines.append(f"records: {told.schema!r}")
    if told.counts.read:
        lines.append(f"tried: {_counted(told.counts)}")
    lines += [f"  {item if len(item) <= _SHOWN else item[:_SHOWN] + '...'}" for item in told.items]
    lines += [f"skipped: {fault}" for fault in told.faults]
    return "\n".join([*lines, "nothing was written"])


def _preview_as_json(told: Preview) -> dict[str, Any]:
    schema = None if told.schema is None else told.schema.to_json()
    return {**asdict(told), "schema": schema}
