"""What a saved state says of ranks.

Responsible for: `shares_of`, how much of every `shard` a rank has had; `rests_of`, what a state
says of an epoch that other ranks have begun; and `with_rests`, the graph in which it goes on.

How much a rank has had is exact where every stage between `shard` and the output can begin right
where the output goes on: stages whose counts are known, and those that were asked when nothing was
on its way in them. Behind a stage that holds items back it is not, and the state says why.

Rules:
- rank and number of ranks are no part of what a graph is, but of a state: one of another rank is
  refused, with what to do instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from splitpipe.errors import ResumeError
from splitpipe.pipeline.dealing import Rest
from splitpipe.pipeline.graph import Graph, Node, unique_names, walk
from splitpipe.pipeline.redistribution import rest_of, told
from splitpipe.pipeline.resuming import Settled
from splitpipe.pipeline.source import SequenceSource
from splitpipe.pipeline.stages import Shard

__all__ = ["rests_of", "shares_of", "with_rests"]


def shares_of(graph: Graph, settled: Settled, epoch: int) -> dict[str, Any]:
    """Return what a rank has had of each `shard`, by the names of these stages.

    Args:
        graph: of the run.
        settled: where its nodes would begin.
        epoch: which is under way.
    """
    why = _reasons(graph, settled)
    made: dict[str, Any] = {}
    for node in graph.nodes:
        if node not in settled.wanted:
            continue
        entry = _entry(node, settled.wanted[node], why.get(node), epoch)
        if entry is None:
            continue
        name, share = entry
        known = made.setdefault(name, share)
        if known != share:  # branches that read it each for itself
            made[name] = {**share, "at": None, "why": "its branches are not in step"}
    return made


def _entry(node: Node, count: int, why: str | None, epoch: int) -> tuple[str, Any] | None:
    source = node.source
    if isinstance(source, SequenceSource) and source.deal is not None:
        deal = source.deal
        positions = source.span(epoch)
        if source.again > 1 and count:
            why = "it is repeated behind shard()"
        share = told(
            deal.rank,
            deal.world_size,
            None if why else -(-min(count, positions) // deal.unit),
            source.rest if source.rest is not None and source.rest.epoch == epoch else None,
            ends=deal.ends,
            step=None if source.balance is None else source.balance.size,
            of=-(-positions // deal.unit),
            why=why,
        )
        return deal.name, share
    if node.stage is not None and isinstance(node.stage.operation, Shard):
        shard = node.stage.operation
        rest = shard.rest if shard.rest is not None and shard.rest.epoch == epoch else None
        at = None if why else count
        share = told(shard.rank, shard.world_size, at, rest, ends=shard.ends, why=why)
        return node.stage.name, share
    return None


def _reasons(graph: Graph, settled: Settled) -> dict[Node, str]:
    """Return, for nodes of which it is not known how many of their items were used up, why."""
    made: dict[Node, str] = {}
    for node in reversed(graph.nodes):
        if node not in settled.wanted or node.stage is None:
            continue
        start = settled.starts.get(node)
        reason = made.get(node)
        if settled.first(node) != settled.wanted[node]:
            reason = f"only running {node.name!r} tells"
        elif start is not None and start.state is not None:
            reason = f"{node.name!r} holds items back"
        for number, one in enumerate(node.inputs):
            read = start.reads[number] if start is not None and start.reads else 0
            if reason is None and read != settled.wanted.get(one, 0):
                made[one] = f"branches of {one.name!r} are not in step"
            elif reason is not None:
                made[one] = reason
    return made


def rests_of(state: Mapping[str, Any], outputs: Mapping[str, Node], epoch: int) -> dict[str, Rest]:
    """Return what a state says of an epoch that others have begun, by the names of `shard` stages.

    Raises:
        ResumeError: the state is one of another rank.
    """
    shares = dict(state.get("ranks") or {})
    made: dict[str, Rest] = {}
    for name, shard in _shards(outputs.values()):
        entry = shares.get(name)
        if entry is None:
            continue
        now = {"rank": shard.rank, "world": shard.world_size}
        if {key: entry.get(key) for key in now} != now:
            raise ResumeError(
                f"the state is of rank {entry.get('rank')} of {entry.get('world')}, and {name!r} "
                f"is rank {shard.rank} of {shard.world_size} now: sp.redistribute(states, "
                f"{shard.world_size}) makes states for other ranks of those of all old ones"
            )
        rest = rest_of(entry, epoch)
        if rest is not None:
            made[name] = rest
    return made


def with_rests(outputs: Mapping[str, Node], rests: Mapping[str, Rest]) -> dict[str, Node]:
    """Return the graph in which these `shard` stages deal out what is left."""
    nodes = walk(outputs.values())
    names = unique_names(nodes)
    made: dict[Node, Node] = {}
    for node in nodes:
        inputs = tuple(made[one] for one in node.inputs)
        stage = node.stage
        if stage is not None and isinstance(stage.operation, Shard):
            rest = rests.get(names[node])
            if rest != stage.operation.rest:
                stage = replace(stage, operation=replace(stage.operation, rest=rest))
        same = inputs == node.inputs and stage is node.stage
        made[node] = node if same else replace(node, stage=stage, inputs=inputs)
    return {name: made[node] for name, node in outputs.items()}


def _shards(ends: Iterable[Node]) -> list[tuple[str, Shard]]:
    nodes = walk(ends)
    names = unique_names(nodes)
    return [
        (names[node], node.stage.operation)
        for node in nodes
        if node.stage is not None and isinstance(node.stage.operation, Shard)
    ]
