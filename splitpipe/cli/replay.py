"""``splitpipe replay``: one item of a recorded run, made again.

Responsible for: saying what a recording holds, finding the pipeline that it names, showing how an
item came about, saving it, and the debugger. Exit code 1 when the item is not the one that was
recorded.
"""

from __future__ import annotations

import sys
import time
from bdb import BdbQuit
from pathlib import Path
from typing import Annotated, Any

import typer

import splitpipe as sp
from splitpipe.cli.sources import AsJson, say_json
from splitpipe.cli.verify import pipelines_of
from splitpipe.errors import FormatError, StorageError
from splitpipe.recording import Recording

__all__ = ["replay"]


def replay(
    directory: Annotated[Path, typer.Argument(help="What the loader was given as record=.")],
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="MODULE:NAME", help="The pipeline, where the recording cannot tell it."
        ),
    ] = None,
    step: Annotated[
        int | None, typer.Option("-s", "--step", min=0, help="Which item; without: an overview.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Which pipeline, of a dict of them.")
    ] = None,
    debug: Annotated[
        bool, typer.Option("--pdb", help="Stop in the debugger where the first stage begins.")
    ] = False,
    save: Annotated[
        Path | None, typer.Option(help="A .npz file to write the item's arrays into.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make one item of a recorded run again, and say which records and numbers went into it."""
    recording = Recording(directory)
    if step is None:
        _overview(recording, as_json=as_json)
        return
    entry = recording.entry(step)
    pipeline = _pipeline(target or entry.heading.get("load"), name)
    try:
        made = sp.replay(directory, step, pipeline, debug=debug)
    except BdbQuit:
        return
    saved = made.save(save) if save is not None else ()
    if as_json:
        say_json({**made.to_json(), "saved": list(saved)})
    else:
        print(made.text)
        if save is not None:
            print(f"saved {', '.join(saved) or 'nothing'} in {save}")
    if made.same is False:
        sys.exit(1)


def _pipeline(target: str | None, name: str | None) -> sp.Pipeline:
    if target is None:
        raise FormatError(
            "the recording does not know under which name its pipeline is found: say MODULE:NAME "
            "behind the folder, or record with sp.Record(folder, load='module:name')"
        )
    found = pipelines_of(target)
    if name is None and len(found) == 1:
        return next(iter(found.values()))
    if name not in found:
        raise FormatError(f"{target} has the pipelines {', '.join(found)}: say which with --name")
    return found[name]


def _overview(recording: Recording, *, as_json: bool) -> None:
    runs = recording.runs()
    try:
        first, last = recording.steps
        steps: list[int] | None = [first, last]
    except StorageError:
        steps = None
    if as_json:
        say_json(
            {
                "directory": recording.directory,
                "steps": steps,
                "damaged": recording.damaged,
                "runs": runs,
            }
        )
        return
    for run in runs:
        print("\n".join(_run_lines(run)))
    have = "no step" if steps is None else f"steps {steps[0]} to {steps[1]}"
    damaged = f", {recording.damaged} lines damaged" if recording.damaged else ""
    print(f"{have}{damaged}; --step N makes one again")


def _run_lines(run: dict[str, Any]) -> list[str]:
    started = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(float(run.get("started", 0))))
    program, begins = run.get("program", {}), run.get("begins", {})
    stages = " > ".join(str(node.get("name")) for node in run.get("pipeline", []))
    lines = [
        f"run {run.get('run')}, {started} UTC, pid {program.get('pid')} on {program.get('host')}",
        f"  begins at step {begins.get('step')}: {stages}",
        f"  loaded as {run.get('load') or 'nothing that was found: say MODULE:NAME'}",
    ]
    end = run.get("end")
    if end is None:
        lines.append("  was killed, or still runs")
    elif "failed" in end:
        lines.append(f"  failed at step {end['step']}: {end['failed']}: {end['message']}")
    else:
        lines.append(f"  ended before step {end['step']}")
    return lines
