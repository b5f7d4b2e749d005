"""Which rank of how many this process is.

Responsible for: `find_rank`, which takes it from what the user said, or from the variables that
launchers set, and `VARIABLES`, which they are and which goes before which.

Rules:
- a pair is taken whole, from one launcher: half a pair is an error, never a guess;
- what was said goes before any variable; no variable at all is rank 0 of 1;
- ranks that must see the same data (tensor or pipeline parallel) are one rank here.

Describing a pipeline reads the environment, in the process that describes it, and nowhere else.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from splitpipe.errors import GraphError
from splitpipe.pipeline.stages.checks import whole

__all__ = ["VARIABLES", "find_rank"]

VARIABLES = (
    ("RANK", "WORLD_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("SLURM_PROCID", "SLURM_NTASKS"),
)
"""Pairs of variables, the first that is set counts: torchrun (and what imitates it), Open MPI,
MPICH and its relatives, Slurm. Slurm comes last since ``mpirun`` and ``torchrun`` inside of a Slurm
job inherit its variables, which are not those of their own processes."""

_GROUPS = ("consecutive", "strided")


def find_rank(
    rank: int | None = None,
    world_size: int | None = None,
    *,
    replicate: int = 1,
    group: str | Sequence[int] = "consecutive",
    environ: Mapping[str, str] | None = None,
) -> tuple[int, int]:
    """Return ``(rank, world_size)``, counted in groups of ranks that see the same data.

    Args:
        rank: from 0; None: from the environment, like `world_size`.
        world_size: how many there are.
        replicate: how many ranks see the same data.
        group: which these are: ``"consecutive"`` ranks, ``"strided"`` ones (a whole row of groups
            lies between two of them), or a number for every rank: those with equal numbers.
        environ: where variables are looked up; None: the environment of this process.

    Raises:
        GraphError: half a pair is given, or set; a number makes no sense; groups do not come out
            even.

    Example:
        >>> find_rank(environ={"RANK": "5", "WORLD_SIZE": "8"})
        (5, 8)
        >>> find_rank(5, 8, replicate=2), find_rank(5, 8, replicate=2, group="strided")
        ((2, 4), (1, 4))
        >>> find_rank(5, 8, group=[0, 0, 1, 1, 0, 0, 1, 1])
        (0, 2)
    """
    if rank is None and world_size is None:
        rank, world_size = _from(os.environ if environ is None else environ)
    elif rank is None or world_size is None:
        given, missing = ("rank", "world_size") if world_size is None else ("world_size", "rank")
        raise GraphError(
            f"shard was given {given}= without {missing}=: say both, or neither where a launcher "
            "sets them"
        )
    world = whole("world_size", world_size, least=1)
    number = whole("rank", rank, least=0)
    if number >= world:
        raise GraphError(
            f"there is no rank {number} of {world}: ranks are counted from 0 to world_size - 1"
        )
    many = whole("replicate", replicate, least=1)
    return _in_groups(number, world, many, group)


def _from(environ: Mapping[str, str]) -> tuple[int, int]:
    for names in VARIABLES:
        found = [name for name in names if environ.get(name, "") != ""]
        if len(found) == 1:
            missing = names[1] if found[0] == names[0] else names[0]
            raise GraphError(
                f"{found[0]} is set to {environ[found[0]]!r} and {missing} is not: set both or "
                "neither, or say shard(rank, world_size)"
            )
        if found:
            rank, world = (_number(name, environ[name]) for name in names)
            if rank >= world:
                raise GraphError(
                    f"{names[0]} is {rank} and {names[1]} is {world}: ranks are counted from 0 to "
                    "the number of ranks - 1; correct them, or say shard(rank, world_size)"
                )
            return rank, world
    return 0, 1


def _number(name: str, text: str) -> int:
    least = 0 if name.endswith(("RANK", "PROCID")) else 1
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise GraphError(f"{name} must be a whole number of at least {least}, not {text!r}")
    return value


def _in_groups(
    rank: int, world: int, replicate: int, group: str | Sequence[int]
) -> tuple[int, int]:
    if not isinstance(group, str):
        return _grouped(rank, world, replicate, group)
    if group not in _GROUPS:
        raise GraphError(
            f"group must be {' or '.join(map(repr, _GROUPS))}, or a number for every rank, not "
            f"{group!r}"
        )
    if world % replicate:
        raise GraphError(
            f"{world} ranks are no groups of {replicate} that see the same data: replicate= must "
            "divide the number of ranks"
        )
    groups = world // replicate
    return (rank // replicate if group == "consecutive" else rank % groups), groups


def _grouped(rank: int, world: int, replicate: int, group: Sequence[int]) -> tuple[int, int]:
    numbers = [whole("each of group", number, least=0) for number in group]
    if len(numbers) != world:
        raise GraphError(f"group has {len(numbers)} numbers for {world} ranks: one for each")
    groups = max(numbers) + 1
    sizes = [numbers.count(number) for number in range(groups)]
    if 0 in sizes:
        raise GraphError(
            f"no rank is in group {sizes.index(0)} of {groups}: groups are counted from 0"
        )
    if replicate != 1 and set(sizes) != {replicate}:
        raise GraphError(
            f"groups of {sorted(set(sizes))} ranks do not fit to replicate={replicate}"
        )
    return numbers[rank], groups
