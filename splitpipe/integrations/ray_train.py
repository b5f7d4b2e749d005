"""Ray Train: a loader for every worker of a training run, and its place in the run's checkpoints.

Responsible for: `loader`, a pipeline's part for this worker; `save` and `restored`, the places of
all workers in a checkpoint's folder. Needs the extra ``ray``.

Rules:
- every worker has equally many steps in an epoch, so that none waits for another in a collective
  operation for ever: a pipeline that cannot promise it is refused;
- each worker saves its own place beside those of the others; who goes on, on the same or another
  number of workers, has what was not had yet, each item once.

Example, the function that a Ray trainer runs in its workers::

    def train(config):
        pipe = sp.Pipeline(sp.open_dataset(config["path"]), shuffle="global", seed=0).batch(64)
        with ray_train.loader(pipe, epochs=3) as loader:
            for step, batch in enumerate(loader):
                loss = train_step(batch)
                if step % 100 == 99:
                    with tempfile.TemporaryDirectory() as folder:
                        ray_train.save(loader, folder)      # on every worker
                        checkpoint = ray.train.Checkpoint.from_directory(folder)
                        ray.train.report({"loss": loss}, checkpoint=checkpoint)
"""

from __future__ import annotations

import os
import re
from typing import Any, Final

from splitpipe.errors import GraphError, ResumeError
from splitpipe.integrations.extras import imported
from splitpipe.loader import Loader
from splitpipe.pipeline.builder import Pipeline
from splitpipe.pipeline.graph import Node
from splitpipe.pipeline.redistribution import redistribute
from splitpipe.pipeline.stages import Shard
from splitpipe.runtime.checkpoint import LoaderCheckpoint

__all__ = ["loader", "rank", "restored", "save", "sharded"]

_NAME: Final = "{name}-{rank:05d}-of-{world:05d}.json"
_DEFAULT: Final = "splitpipe"


def rank() -> tuple[int, int]:
    """Which worker of the training run this is, from 0, and how many there are.

    Raises:
        ImportError: Ray is not installed.
    """
    context = _train().get_context()
    return context.get_world_rank(), context.get_world_size()


def loader(
    pipeline: Pipeline, *, ends: str = "drop", name: str = _DEFAULT, **options: Any
) -> Loader:
    """The loader of this worker; it goes on where the run's checkpoint says, if there is one.

    Args:
        pipeline: of all workers together, without ``shard``: whole batches are dealt out at its
            end. Or with a ``shard(*ray_train.rank())`` of its own, to say where.
        ends: what becomes of a last round of batches that is not full: ``"drop"`` or ``"pad"``.
        name: of this loader in checkpoints, where a run has several.
        options: see `Pipeline.loader`. With ``state=`` no checkpoint is looked for.

    Raises:
        GraphError: workers would not have equally many steps.
        ResumeError: the checkpoint is of another graph, or of a part of the workers.
    """
    own, world = rank()
    mine = sharded(pipeline, own, world, ends=ends)
    if "state" not in options:
        checkpoint = _train().get_checkpoint()
        if checkpoint is not None:
            with checkpoint.as_directory() as folder:
                options["state"] = restored(folder, own, world, name=name)
    return mine.loader(**options)


def sharded(pipeline: Pipeline, rank: int, world_size: int, *, ends: str = "drop") -> Pipeline:
    """The part of a pipeline that is one worker's, with as many steps as the others have.

    Args:
        pipeline: with or without a ``shard`` of its own, which has to be of this rank.
        rank: from 0.
        world_size: how many workers there are.
        ends: as for `loader`; only where the pipeline has no ``shard``.

    Raises:
        GraphError: workers would not have equally many steps.

    Example:
        >>> import splitpipe as sp
        >>> pipe = sp.Pipeline(range(12)).filter(lambda n: n != 5).batch(2)
        >>> for rank in range(2):
        ...     [batch.tolist() for batch in sharded(pipe, rank, 2)]
        [[0, 1], [4, 6], [9, 10]]
        [[2, 3], [7, 8], [11]]
    """
    found = [stage for stage in pipeline.stages if isinstance(stage.operation, Shard)]
    if ends == "uneven" or any(getattr(stage.operation, "ends", "") == "uneven" for stage in found):
        raise GraphError(
            "with ends='uneven' some workers have a step more than others and would wait for them "
            "for ever: say 'drop' or 'pad'"
        )
    if not found:
        return pipeline.shard(rank, world_size, ends=ends)
    for stage in found:
        operation = stage.operation
        assert isinstance(operation, Shard)
        if (operation.rank, operation.world_size) != (rank, world_size):
            raise GraphError(
                f"{stage.name!r} is of rank {operation.rank} of {operation.world_size}, this is "
                f"worker {rank} of {world_size}: leave it out, or write shard(*ray_train.rank())"
            )
    _check_behind(pipeline.node)
    return pipeline


def _check_behind(node: Node) -> bool:
    """Whether there is a shard before, or at, a node; what stands behind one must keep counts."""
    before = [_check_behind(one) for one in node.inputs]
    if node.stage is None:
        return False
    if isinstance(node.stage.operation, Shard):
        return True
    if any(before) and node.stage.operation.ratio is None:
        raise GraphError(
            f"only running tells how many items {node.stage.name!r} gives, which stands behind "
            "shard(): workers would not have equally many steps. Leave shard() out, so that whole "
            "batches are dealt out at the end, or put it behind this stage"
        )
    return any(before)


# -- checkpoints -----------------------------------------------------------------------------


def save(loader: Loader, folder: str | os.PathLike[str], *, name: str = _DEFAULT) -> None:
    """Save the place of this worker's loader in the folder of a checkpoint.

    To be called on every worker at the same step; Ray puts the files of all workers into one
    checkpoint.

    Args:
        loader: of this worker.
        folder: what ``ray.train.Checkpoint.from_directory`` is given.
        name: of this loader, where a run has several.
    """
    save_state(loader.state_dict(), folder, *rank(), name=name)


def save_state(
    state: dict[str, Any],
    folder: str | os.PathLike[str],
    rank: int,
    world_size: int,
    *,
    name: str = _DEFAULT,
) -> None:
    """Save one worker's state in a folder."""
    file = _NAME.format(name=name, rank=rank, world=world_size)
    LoaderCheckpoint(os.path.join(os.fspath(folder), file)).save(state)


def restored(
    folder: str | os.PathLike[str], rank: int, world_size: int, *, name: str = _DEFAULT
) -> dict[str, Any] | None:
    """The state with which a worker goes on, on the same or another number of workers.

    Args:
        folder: of a checkpoint.
        rank: of the worker that goes on.
        world_size: how many go on.
        name: of the loader.

    Returns:
        ``None`` where the checkpoint has no place of such a loader.

    Raises:
        ResumeError: those of some workers are not there, or cannot be dealt out anew.

    Example:
        >>> import tempfile, splitpipe as sp
        >>> pipe, folder = sp.Pipeline(range(12)), tempfile.mkdtemp()
        >>> for rank in range(3):
        ...     with sharded(pipe, rank, 3).loader(executor="inline") as one:
        ...         _ = next(one), save_state(one.state_dict(), folder, rank, 3)
        >>> for rank in range(2):
        ...     state = restored(folder, rank, 2)
        ...     list(sharded(pipe, rank, 2).loader(executor="inline", state=state))
        [3, 5, 7, 9]
        [4, 6, 8, 10]
    """
    worlds = _found(folder, name)
    if not worlds:
        return None
    if len(worlds) > 1:
        raise ResumeError(
            f"{os.fspath(folder)} has the places of several runs, of {sorted(worlds)} workers: "
            "keep one"
        )
    ((world, files),) = worlds.items()
    lost = sorted(set(range(world)) - set(files))
    if lost:
        raise ResumeError(
            f"{os.fspath(folder)} has no place of workers {lost} of {world}: call "
            "ray_train.save() on every worker, and report the checkpoint on every worker"
        )
    if world == world_size:
        return dict(LoaderCheckpoint(files[rank]).load())
    states = [LoaderCheckpoint(files[one]).load() for one in range(world)]
    return redistribute(states, world_size)[rank]


def _found(folder: str | os.PathLike[str], name: str) -> dict[int, dict[int, str]]:
    """The files with places: number of workers -> rank -> path."""
    pattern = re.compile(re.escape(name) + r"-(\d{5,})-of-(\d{5,})\.json")
    found: dict[int, dict[int, str]] = {}
    for entry in os.scandir(folder):
        match = pattern.fullmatch(entry.name)
        if match is not None:
            found.setdefault(int(match[2]), {})[int(match[1])] = entry.path
    return found


def _train() -> Any:
    return imported("ray.train", extra="ray", by="Ray Train")
