"""Which inputs of a task are still read in an epoch, and for whom.

Responsible for: `needed`, the inputs that an output still depends on, and `forks`, where the
outputs that read an input part: pure functions of a body and of how far its streams have come. An
input goes on to its next epoch when nobody needs it in this one.

Rules:
- a stream that several read and that has ended needs nothing any more, whatever is kept of it for
  those that are behind;
- where that is not known an input counts as needed: waiting is right, only slower.
"""

from __future__ import annotations

from collections.abc import Iterable

from splitpipe.pipeline.graph import Body
from splitpipe.runtime.branches import Branches
from splitpipe.runtime.chain import Chain

__all__ = ["forks", "inputs_of", "needed"]


def inputs_of(body: Body, output: int) -> frozenset[int]:
    """Return the inputs of `body`, by their numbers as parts, that output `output` depends on.

    Example:
        >>> from splitpipe.pipeline.graph import Part
        >>> two = Body((Part(edge=0), Part(edge=1)), outputs=(1, 0))
        >>> inputs_of(two, 0), inputs_of(two, 1)
        (frozenset({1}), frozenset({0}))
    """
    return _upwards(body, output, None)


def needed(body: Body, chain: Chain, output: int) -> frozenset[int]:
    """Return those of `inputs_of` that are still read for an output that has not ended."""
    return _upwards(body, output, chain)


def forks(body: Body, chain: Chain, inputs: Iterable[int]) -> list[Branches]:
    """Return what several read the items of `inputs` through: the first such place behind each."""
    after: dict[int, list[int]] = {number: [] for number in range(len(body.parts))}
    for number, part in enumerate(body.parts):
        for before in part.inputs:
            after[before].append(number)
    found: dict[int, None] = {}
    for number in inputs:
        while len(after[number]) == 1 and number not in body.outputs:
            (number,) = after[number]
        found[number] = None
    return [one for number in found for one in chain.branches(number)]


def _upwards(body: Body, output: int, chain: Chain | None) -> frozenset[int]:
    found, before = set(), {body.outputs[output]}
    seen: set[int] = set()
    while before:
        number = before.pop()
        seen.add(number)
        part = body.parts[number]
        if chain is not None and _ended(chain, number, body):
            continue
        if part.edge is not None:
            found.add(number)
        before.update(one for one in part.inputs if one not in seen)
    return frozenset(found)


def _ended(chain: Chain, number: int, body: Body) -> bool:
    """Whether all that comes out of a part was made, or can be had without its inputs."""
    passes = chain.branches(number)
    if passes and all(one.over for one in passes):
        return True
    stage = body.parts[number].stage
    return stage is not None and chain.replays(stage)
