"""Saved states of loaders: values of JSON that say where in the stream a loader is.

Responsible for: `state_of`, which makes one; `resume_of`, which makes of the states of all outputs
of a run what the run has to be told; and refusing what is no state, or one of another graph.

Rules:
- what a state means is said by `epoch`, `items` (how many of that epoch were given) and `graph`
  alone: resuming gives exactly the items that would have come next. Everything else in it makes
  that quicker;
- it holds no items, and nothing of workers, executors, channels or prefetching;
- a state that does not fit is an error that names what changed, never a stream that is nearly
  right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from splitpipe.errors import ResumeError
from splitpipe.pipeline.dealing import Rest
from splitpipe.pipeline.graph import Node
from splitpipe.pipeline.plan import Whole
from splitpipe.pipeline.redistribution import elastic
from splitpipe.pipeline.resuming import Fact, Facts, Resume, settle
from splitpipe.pipeline.shares import rests_of, shares_of, with_rests
from splitpipe.pipeline.signature import compare
from splitpipe.pipeline.source import SequenceSource

__all__ = ["VERSION", "Place", "graph_of", "place_of", "resume_of", "state_of"]

VERSION = 1
"""Of the layout of states; one of a later version is refused."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a loader is.

    Attributes:
        epoch: which pass over the sources.
        items: how many items of it were given.
    """

    epoch: int = 0
    items: int = 0


def state_of(
    whole: Whole, signature: Sequence[Mapping[str, Any]], output: str, place: Place, facts: Facts
) -> dict[str, Any]:
    """Return the state of `output`, which is at `place`."""
    resume = Resume(place.epoch, {output: place.items}, facts)
    settled = settle(whole.graph, whole.keys, resume)
    nodes: dict[str, Any] = {key: fact.to_json() for key, fact in settled.used.items()}
    for node, start in settled.starts.items():
        if isinstance(node.source, SequenceSource):
            nodes[whole.keys[node]] = {"at": start.first}
    made = {
        "version": VERSION,
        "output": output,
        "epoch": place.epoch,
        "items": place.items,
        "nodes": nodes,
        "graph": signature,
    }
    ranks = shares_of(whole.graph, settled, place.epoch)
    return {**made, "ranks": ranks} if ranks else made


def place_of(state: Mapping[str, Any], signature: list[dict[str, Any]]) -> Place:
    """Return the place that a state is of.

    Raises:
        ResumeError: it is none, or of another graph.
    """
    if "version" not in state:
        raise ResumeError(
            f"this is no state of a loader: {_short(state)}; pass what Loader.state_dict() returned"
        )
    if state["version"] != VERSION:
        raise ResumeError(
            f"the state has the layout {state['version']!r}, this splitpipe knows {VERSION}; "
            "load it with the splitpipe that saved it"
        )
    try:
        epoch, items, graph = int(state["epoch"]), int(state["items"]), list(state["graph"])
    except (KeyError, TypeError, ValueError) as error:
        raise ResumeError(f"the state is damaged: {error!r} in {_short(state)}") from error
    if epoch < 0 or items < 0:
        raise ResumeError(f"the state is damaged: epoch {epoch}, item {items}")
    # Where ranks were redistributed batches may have other sizes.
    compare(graph, elastic(signature) if state.get("elastic") else signature)
    return Place(epoch, items)


def graph_of(
    states: Mapping[str, Mapping[str, Any]],
    places: Mapping[str, Place],
    outputs: Mapping[str, Node],
) -> dict[str, Node]:
    """Return the graph in which a run goes on from the states of its outputs: where other ranks
    have begun the epoch, ranks share what is left of it.

    Raises:
        ResumeError: a state is one of another rank, or they say different things of ranks.
    """
    rests: dict[str, Rest] = {}
    for name, state in states.items():
        for stage, rest in rests_of(state, outputs, places[name].epoch).items():
            if rests.setdefault(stage, rest) != rest:
                raise ResumeError(
                    f"the states of {sorted(states)} differ in what ranks have had of {stage!r}: "
                    "give those of one moment"
                )
    return with_rests(outputs, rests)


def resume_of(
    states: Mapping[str, Mapping[str, Any]], places: Mapping[str, Place], outputs: Sequence[str]
) -> Resume:
    """Return how a run goes on from the states of its outputs.

    Raises:
        ResumeError: there is not one for each output, or they are more than one epoch apart.
    """
    if set(states) != set(outputs):
        raise ResumeError(
            f"states are given for {sorted(states)}, the outputs are {sorted(outputs)}; give one "
            "of the same moment for each"
        )
    first = min(place.epoch for place in places.values())
    for name, place in places.items():
        if place.epoch > first + 1:
            raise ResumeError(
                f"the state of {name!r} is of epoch {place.epoch}, another one of epoch {first}; "
                "outputs of one run are one epoch apart at most: save them at the same moment"
            )
    facts = Facts()
    for name, state in states.items():
        if places[name].epoch == first:
            for key, values in dict(state.get("nodes", {})).items():
                if isinstance(values, list):  # anything else only tells
                    facts.add(key, Fact.of_json(values))
    wanted = {name: place.items for name, place in places.items() if place.epoch == first}
    sought = frozenset(name for name, state in states.items() if "sought" in state)
    return Resume(first, wanted, facts, sought=sought)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
