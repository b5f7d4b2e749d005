"""Where ranks go on that others have left.

Responsible for: `redistribute`, from the saved states of all ranks of a run to those of another
number of ranks; and `redistributed`, which does it for one `shard`. Both are pure functions of
values of JSON.

What was had of a sequence is had, whoever had it. What is left is dealt out among the new ranks, in
its order, round-robin, as an epoch of its own. Where ranks were in step that is the rest of the
sequence; else it has holes, which are said as layers (`splitpipe.pipeline.dealing`): how many each
old rank had.

What a state says of a `shard` (see `told`):

- ``at``: how many items of its part the rank has had, exactly; None where only running tells, and
  ``why``;
- ``rank``, ``world``, ``ends``;
- ``of``, where it is known: how many the rank has in the whole epoch;
- ``step``, where steps are balanced: samples of all ranks in one;
- ``done``, where the epoch was begun by others: the layers.

Rules:
- no item is lost and none comes twice: what cannot be said exactly is a `ResumeError` that says
  what to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from splitpipe.errors import ResumeError
from splitpipe.pipeline.dealing import Layer, Rest, simplified
from splitpipe.pipeline.stages.checks import whole

__all__ = ["done_of", "elastic", "redistribute", "redistributed", "rest_of", "told"]

Entry = Mapping[str, Any]


def redistribute(states: Sequence[Mapping[str, Any]], world_size: int) -> list[dict[str, Any]]:
    """Return the states of `world_size` ranks that go on where others stopped.

    Nothing is lost and nothing comes twice: what is left of the epoch is dealt out among the new
    ranks, in its order, as an epoch of its own. Batches may have another size then, so that all
    ranks together have as many samples in a step as before.

    Args:
        states: what `Loader.state_dict` returned on every old rank; in any order. Ranks need not be
            in step.
        world_size: how many ranks go on.

    Returns:
        The state of each new rank, in their order: for `Loader.load_state_dict`, or ``state=`` of
        `Pipeline.loader`, of the same pipeline with ``shard(rank, world_size)``.

    Raises:
        ResumeError: a rank is missing, the states are not those of one run, or a stage behind
            `shard` holds items back, so that what is left cannot be told; it says what to do.

    Example:
        >>> import splitpipe as sp
        >>> pipe = sp.Pipeline(range(12))
        >>> states = []
        >>> for rank in range(3):
        ...     with pipe.shard(rank, 3).loader(executor="inline") as loader:
        ...         _, state = next(loader), loader.state_dict()
        ...     states.append(state)
        >>> for rank, state in enumerate(sp.redistribute(states, 2)):
        ...     with pipe.shard(rank, 2).loader(executor="inline", state=state) as loader:
        ...         print(list(loader))
        [3, 5, 7, 9]
        [4, 6, 8, 10]
    """
    world = whole("world_size", world_size, least=1)
    states = _together(states)
    name = next(iter(states[0]["ranks"]))
    if world == int(states[0]["ranks"][name]["world"]):
        order = _ranks([state["ranks"][name] for state in states], name)
        return [
            next(dict(state) for state in states if state["ranks"][name] == entry)
            for entry in order
        ]
    return _of_others(states, world)


def _of_others(states: Sequence[Mapping[str, Any]], world: int) -> list[dict[str, Any]]:
    first = states[0]
    shares = {
        name: redistributed([state["ranks"][name] for state in states], world, name)
        for name in first["ranks"]
    }
    return [
        {
            **first,
            "items": 0,
            "nodes": {},
            "graph": elastic(first["graph"]),
            "elastic": True,
            "ranks": {name: of_ranks[rank] for name, of_ranks in shares.items()},
        }
        for rank in range(world)
    ]


def elastic(graph: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the signature of a graph without the sizes of the batches that a rank makes."""
    made: list[dict[str, Any]] = []
    behind: set[int] = set()
    for number, node in enumerate(graph):
        entry = dict(node)
        if entry.get("kind") == "shard" or behind.intersection(entry.get("reads") or ()):
            behind.add(number)
            if entry.get("kind") in _SIZED:
                entry["size"] = None
                if str(entry.get("name")).startswith(f"{entry['kind']}("):
                    entry["name"] = entry["kind"]
        made.append(entry)
    return made


_SIZED = ("batch", "balance")


def _together(states: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return states of one epoch of one graph.

    Raises:
        ResumeError: they are none.
    """
    if not states:
        raise ResumeError("there is no state to redistribute: give those of all ranks")
    for state in states:
        if not {"epoch", "items", "graph"} <= set(state):
            raise ResumeError(f"this is no state of a loader: {state!r:.80}")
        if not state.get("ranks"):
            raise ResumeError(
                "a state says nothing of ranks: its pipeline has no shard(), so that every rank "
                "goes on with the same state"
            )
    first = min(states, key=lambda state: int(state["epoch"]))
    made = [_ended(state, first) for state in states]
    for state in made:
        for key in ("version", "output", "epoch", "graph"):
            if state.get(key) != first.get(key):
                raise ResumeError(
                    f"the states are not those of one run at one time: {key!r} differs; save them "
                    "at the same step on all ranks"
                )
        if set(state["ranks"]) != set(first["ranks"]):
            raise ResumeError("the states are not those of one run: they name other stages")
    return made


def _ended(state: Mapping[str, Any], first: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a state at the beginning of an epoch as one at the end of the epoch of `first`."""
    if int(state["epoch"]) != int(first["epoch"]) + 1 or int(state["items"]):
        return state
    shares = {}
    for name, entry in state["ranks"].items():
        known = dict(first["ranks"].get(name, {}))
        had = entry.get("of")
        if "done" in known or had is None:
            return state  # how much the rank had of that epoch is not said
        shares[name] = {**entry, "at": had}
    return {**state, "epoch": first["epoch"], "ranks": shares}


def told(
    rank: int, world_size: int, at: int | None, rest: Rest | None, **more: Any
) -> dict[str, Any]:
    """Return what a state says of a `shard`; `more` are the words that it may leave out."""
    entry: dict[str, Any] = {"at": at, "rank": rank, "world": world_size}
    entry.update((name, value) for name, value in more.items() if value is not None)
    if rest is not None:
        entry["done"] = done_of(rest.layers)
    return entry


def done_of(layers: Sequence[Layer]) -> list[Any]:
    """Return layers in values of JSON."""
    return [[layer.world_size, list(layer.at)] for layer in layers]


def rest_of(entry: Entry, epoch: int) -> Rest | None:
    """Return what an entry says of an epoch that others have begun."""
    layers = _layers(entry)
    return Rest(epoch, layers) if layers else None


def redistributed(
    entries: Sequence[Entry], world_size: int, name: str = "shard"
) -> list[dict[str, Any]]:
    """Return the entries of `world_size` ranks that go on where others stopped.

    Args:
        entries: of one `shard`, of all ranks, in any order; replicas of a rank may be there too.
        world_size: how many ranks go on.
        name: of the stage, for messages.

    Raises:
        ResumeError: a rank is missing, the ranks are not of one run, or what is left cannot be
            told exactly.

    Example:
        >>> ranks = [{"at": at, "rank": rank, "world": 2} for rank, at in enumerate([5, 6])]
        >>> redistributed(ranks, 3)[2]
        {'at': 0, 'rank': 2, 'world': 3, 'done': [[2, [5, 6]]]}
    """
    ranks = _ranks(entries, name)
    first = ranks[0]
    for entry in ranks:
        if entry["at"] is None:
            raise ResumeError(
                f"what rank {entry['rank']} has had of {name!r} cannot be told exactly, since "
                f"{entry.get('why', 'stages behind it hold items')}; save the states at the end of "
                "an epoch, put shard() behind that stage, or go on with as many ranks as before"
            )
    had = Layer(len(ranks), tuple(int(entry["at"]) for entry in ranks))
    layers = simplified([*_layers(first), had])
    _check_steps(first, layers, world_size, name)
    plain = {key: value for key, value in first.items() if key not in ("done", "why", "of")}
    made = []
    for rank in range(world_size):
        entry = {**plain, "at": 0, "rank": rank, "world": world_size}
        made.append({**entry, "done": done_of(layers)} if layers else entry)
    return made


def _check_steps(entry: Entry, layers: tuple[Layer, ...], world_size: int, name: str) -> None:
    """A balanced sequence begins alike for any number of ranks up to the end of a full step."""
    step = int(entry.get("step", 0))
    if not step:
        return
    if step % world_size:
        raise ResumeError(
            f"the steps of {name!r} have {step} samples for all ranks, which {world_size} ranks "
            "cannot share equally; begin with another size at the next epoch"
        )
    if layers and (len(layers) > 1 or layers[0].world_size > 1 or layers[0].at[0] % step):
        raise ResumeError(
            f"the steps of {name!r} are balanced: what is left can be told to other ranks behind "
            "a full step alone, the same one on all of them; save the states there, or at the end "
            "of an epoch"
        )


def _layers(entry: Entry) -> tuple[Layer, ...]:
    try:
        return tuple(Layer(int(w), tuple(int(n) for n in at)) for w, at in entry.get("done") or ())
    except (TypeError, ValueError) as error:
        raise ResumeError(f"a saved state says {entry!r} of ranks: it is damaged") from error


def _ranks(entries: Sequence[Entry], name: str) -> list[Entry]:
    """Return one entry for each old rank, in their order."""
    found: dict[int, Entry] = {}
    for entry in entries:
        rank = int(entry["rank"])
        if found.setdefault(rank, entry) != entry:
            raise ResumeError(
                f"two states of rank {rank} differ at {name!r}: give those of one step, one of "
                "each rank"
            )
    first = next(iter(found.values()))
    for entry in found.values():
        for key in ("world", "ends", "step", "done"):
            if entry.get(key) != first.get(key):
                raise ResumeError(
                    f"the states are not those of one run: {key!r} of {name!r} is "
                    f"{first.get(key)!r} in one and {entry.get(key)!r} in another"
                )
    world = int(first["world"])
    missing = sorted(set(range(world)) - set(found))
    if missing:
        raise ResumeError(
            f"the states of ranks {', '.join(map(str, missing))} are missing: what is left of "
            f"{name!r} follows from those of all {world} ranks"
        )
    return [found[rank] for rank in range(world)]
