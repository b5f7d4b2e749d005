"""Where ranks go on that others have left.

Responsible for: `redistributed`, from how far the ranks of one world came with a sequence to what
is left of it for those of another one; a pure function of values of JSON.

What was had of a sequence is had, whoever had it. What is left is dealt out among the new ranks, in
its order, round-robin, as an epoch of its own. Where ranks were in step that is the rest of the
sequence; else it has holes, which are said as layers (`splitpipe.pipeline.dealing`): how many each
old rank had.

What a state says of a `shard` (see `told`):

- ``at``: how many items of its part the rank has had, exactly; None where only running tells, and
  ``why``;
- ``rank``, ``world``, ``ends``;
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

__all__ = ["done_of", "redistributed", "rest_of", "told"]

Entry = Mapping[str, Any]


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
    plain = {key: value for key, value in first.items() if key not in ("done", "why")}
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
