"""Pipelines for a Trainer of Lightning.

Responsible for: `PipelineDataModule`. Needs Lightning (``pip install lightning``) and the extra
``torch``.

Rules:
- which part is whose is said by the trainer: it tells its ranks before the launcher's variables are
  complete;
- where the loaders are is in the trainer's checkpoints: a fit that goes on in the middle of an
  epoch goes on with the batch that would have come next, whatever `Pipeline.loader` had ready;
- the trainer moves batches to its device, and ends the runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from typing import Any, TypeAlias

if find_spec("lightning") is None:
    raise ImportError("a data module of Lightning needs it: pip install lightning")

from lightning.pytorch import LightningDataModule

from splitpipe.integrations.torch.epochs import EpochLoader
from splitpipe.pipeline.builder import Pipeline
from splitpipe.pipeline.graph import walk
from splitpipe.pipeline.stages import Shard

__all__ = ["PipelineDataModule"]

Described: TypeAlias = "Pipeline | Callable[[int, int], Pipeline]"


class PipelineDataModule(LightningDataModule):  # type: ignore[misc]  # its types are not followed
    """Pipelines as the data of a Lightning trainer.

    Args:
        train: makes the batches to fit to: a pipeline, whose batches are dealt to the ranks unless
            it is sharded already, or a function of (rank, number of ranks) that returns one, to
            have `Pipeline.shard` where it costs least.
        val: to validate with. Ranks have the same number of steps: of a last round that is not
            full, some ranks get a batch of the beginning again.
        test: like `val`.
        predict: like `val`.
        options: what `Pipeline.loader` takes, but for ``epochs`` and ``state``.

    Example:
        >>> import splitpipe as sp
        >>> from splitpipe.integrations.lightning import PipelineDataModule
        >>> data = PipelineDataModule(sp.Pipeline(range(8)).batch(4), executor="inline")
        >>> [batch.tolist() for batch in data.train_dataloader()]
        [[0, 1, 2, 3], [4, 5, 6, 7]]
        >>> data.teardown("fit")
    """

    def __init__(
        self,
        train: Described | None = None,
        *,
        val: Described | None = None,
        test: Described | None = None,
        predict: Described | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self._options = options
        self._made: list[EpochLoader] = []
        self._train: EpochLoader | None = None
        self._saved: Mapping[str, Any] | None = None  # of the training, until its loader is made
        if train is not None:
            self.train_dataloader = partial(self._train_loader, train)
        for name, one in {"val": val, "test": test, "predict": predict}.items():
            if one is not None:  # what there is none of stays Lightning's own: it looks for that
                setattr(self, f"{name}_dataloader", partial(self._loader, one, ends="pad"))

    def state_dict(self) -> dict[str, Any]:
        """Return where the training is, for the trainer's checkpoints."""
        return {} if self._train is None else {"train": self._train.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there when the training begins."""
        self._saved = state.get("train")

    def teardown(self, stage: str) -> None:
        """End the runs of a fit, a validation, a test or a prediction."""
        del stage
        for loader in self._made:
            loader.close()
        self._made.clear()

    def _train_loader(self, described: Described) -> EpochLoader:
        self._train = self._loader(described, ends="drop")
        if self._saved is not None:
            self._train.load_state_dict(self._saved)
            self._saved = None
        return self._train

    def _loader(self, described: Described, *, ends: str) -> EpochLoader:
        trainer = self.trainer
        rank, ranks = (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)
        pipe = described if isinstance(described, Pipeline) else described(rank, ranks)
        if ranks > 1 and not _is_sharded(pipe):
            pipe = pipe.shard(rank, ranks, ends=ends)
        loader = _TrainerLoader(pipe, trainer, self._options)
        self._made.append(loader)
        return loader


class _TrainerLoader(EpochLoader):
    """Counts epochs as the trainer does: one that has had its last batch is over."""

    def __init__(self, pipe: Pipeline, trainer: Any, options: Mapping[str, Any]) -> None:
        # Where the length is not known the trainer looks one batch ahead, to see the end coming.
        super().__init__(pipe, taken_ahead=0 if _has_length(pipe) else 1, **options)
        self._trainer = trainer

    def state_dict(self) -> dict[str, Any]:
        """Return where the trainer is."""
        state = super().state_dict()
        limit = float("inf") if self._trainer is None else self._trainer.num_training_batches
        if state["items"] < limit:
            return state
        begins = {key: one for key, one in state.items() if key not in ("nodes", "ranks")}
        return {**begins, "epoch": state["epoch"] + 1, "items": 0}


def _is_sharded(pipe: Pipeline) -> bool:
    stages = [node.stage for node in walk([pipe.node])]
    return any(stage is not None and isinstance(stage.operation, Shard) for stage in stages)


def _has_length(pipe: Pipeline) -> bool:
    try:
        len(pipe)
    except TypeError:
        return False
    return True
