"""Starting a run: a loader for each of its outputs.

Responsible for: `start`, from descriptions and saved states to loaders. From when this is imported
on it is what runs pipelines.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from splitpipe.interrupts import held_back
from splitpipe.loader import Loader
from splitpipe.pipeline.builder import Pipeline, set_runner
from splitpipe.pipeline.plan import RunOptions
from splitpipe.pipeline.signature import signature
from splitpipe.recording.seeing import recorder_of
from splitpipe.runtime.run import Run
from splitpipe.runtime.saved import Place, graph_of, place_of, resume_of
from splitpipe.runtime.seats import tell

__all__ = ["start", "tell"]


def start(
    outputs: Mapping[str, Pipeline],
    options: RunOptions,
    states: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Loader]:
    """Start one run that makes all `outputs`, going on from `states`."""
    made: dict[str, Loader] = {}
    try:
        with held_back(most=1):
            made = _started(outputs, options, states)
    except BaseException:
        for loader in made.values():
            loader.close()
        raise
    return made


def _started(
    outputs: Mapping[str, Pipeline],
    options: RunOptions,
    states: Mapping[str, Mapping[str, Any]] | None,
) -> dict[str, Loader]:
    nodes = {name: pipeline.node for name, pipeline in outputs.items()}
    places: dict[str, Place] = {}
    resume = None
    if states is not None:
        now = signature(nodes)
        places = {name: place_of(state, now) for name, state in states.items()}
        resume = resume_of(states, places, list(outputs))
        nodes = graph_of(states, places, nodes)
    run = Run(nodes, options, resume)
    try:
        recorders = [
            recorder_of(name, pipeline, run, number, places.get(name, Place()))
            for number, (name, pipeline) in enumerate(outputs.items())
        ]
    except BaseException:
        for number in range(len(outputs)):
            run.release(number)
        raise
    return {
        name: Loader(
            pipeline,
            run,
            number,
            recorders[number],
            places.get(name, Place()),
            sought="sought" in (states or {}).get(name, {}),
        )
        for number, (name, pipeline) in enumerate(outputs.items())
    }


set_runner(start, tell)
