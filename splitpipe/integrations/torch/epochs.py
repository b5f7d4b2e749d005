"""`EpochLoader`: a pipeline where a framework wants a `DataLoader`.

Responsible for: an object that is iterated over once an epoch, knows its length, and says and loads
a state: what Lightning, Accelerate, the Trainer of Hugging Face, and loops ``for epoch in ...: for
batch in loader`` ask of a loader.

Rules:
- an iteration is the next epoch; one that goes on from a state is the rest of the epoch that it was
  in. Workers live on from one epoch to the next;
- it is no `DataLoader`: what would put another sampler in, or deal its batches to ranks once more,
  leaves it alone. Which rank has what is said by `Pipeline.shard`, once;
- frameworks keep the state of one rank for all of them, since ranks are in step. A state of another
  rank, of as many ranks, is therefore taken: it says the place, and the rank's own stages make good
  what it cannot say.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self

from splitpipe.errors import PipelineError
from splitpipe.integrations.torch.loader import TorchLoader
from splitpipe.integrations.torch.signals import Signal, signal_for_accelerate
from splitpipe.integrations.torch.skipping import Skippable
from splitpipe.pipeline.graph import unique_names, walk
from splitpipe.pipeline.stage import check_count
from splitpipe.pipeline.stages import Shard

if TYPE_CHECKING:
    from splitpipe.pipeline.builder import Pipeline

__all__ = ["EpochLoader"]


class EpochLoader(Skippable):
    """Batches of a pipeline as tensors, an epoch for each iteration.

    Args:
        pipeline: what makes the batches; sharded, where there are ranks.
        device: see `Loader.to_torch`.
        pin_memory: see `Loader.to_torch`.
        taken_ahead: how many batches its user takes before it uses them, so that a state is that of
            what was used: 1 for a framework that looks one batch ahead to see the end coming.
        options: what `Pipeline.loader` takes, but for ``epochs`` and ``state``.

    Example:
        >>> import splitpipe as sp
        >>> from splitpipe.integrations.torch import EpochLoader
        >>> pipe = sp.Pipeline(range(4), shuffle="global", seed=1).batch(2)
        >>> with EpochLoader(pipe, executor="inline") as loader:
        ...     len(loader), [[b.tolist() for b in loader] for epoch in range(2)]
        (2, [[[2, 1], [0, 3]], [[0, 2], [3, 1]]])
    """

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        device: Any = None,
        pin_memory: bool | None = None,
        taken_ahead: int = 0,
        **options: Any,
    ) -> None:
        check_count("taken_ahead", taken_ahead, least=0)
        self.pipeline = pipeline
        self._options = options
        self._torch = {"device": device, "pin_memory": pin_memory}
        self._loader: TorchLoader | None = None
        self._epochs: Iterator[Iterator[Any]] = iter(())
        self._begins = 0  # the epoch of the next iteration
        # States before the batches that were taken last.
        self._earlier: deque[dict[str, Any]] = deque(maxlen=taken_ahead)
        self._signal: Signal | None = None  # of the iteration that Accelerate knows of

    def __len__(self) -> int:
        return len(self.pipeline)

    def __iter__(self) -> Iterator[Any]:
        # An iteration begins when something is taken of it: frameworks make some that they drop.
        loader = self._begun()
        items = next(self._epochs, None)
        if items is None:
            raise PipelineError(f"{self!r} was closed; make a new one")
        self._earlier.clear()
        self._begins = loader.loader.epoch + 1
        self._signal = signal = signal_for_accelerate()
        if signal is not None:
            loader.look_ahead()
        try:
            while True:
                if self._earlier.maxlen:
                    self._earlier.append(loader.state_dict())
                try:
                    batch = next(items)
                except StopIteration:
                    break
                if signal is not None:
                    signal.end_of_dataloader = loader.at_end
                yield batch
                del batch  # or it would be kept until the next one
        finally:
            if signal is not None:
                signal.end()
        self._earlier.clear()

    def rest(self, step: int) -> Iterator[Any]:
        """Return an iterator over the next epoch without its first `step` batches, which are not
        made where its stages can begin there.

        What ``accelerate.skip_first_batches``, and the Trainer of Hugging Face, go on with.

        Example:
            >>> import splitpipe as sp
            >>> from splitpipe.integrations.torch import EpochLoader
            >>> with EpochLoader(sp.Pipeline(range(8)).batch(2), executor="inline") as loader:
            ...     [batch.tolist() for batch in loader.rest(3)]
            [[6, 7]]
        """
        if step:
            self._begun().seek(step, epoch=self._begins)
            self._renew(self._begins)
        return iter(self)

    def leave(self) -> None:
        """Let nobody take the iteration for one that is on, though nothing tells that it is over:
        who takes batches by number asks for none behind the last.
        """
        if self._signal is not None:
            self._signal.end()

    @property
    def loader(self) -> TorchLoader:
        """What runs the pipeline; it begins with the first iteration, or with this."""
        return self._begun()

    def set_epoch(self, epoch: int) -> None:
        """Let the next iteration be this epoch: the rest of it, after a state of it was loaded.

        Frameworks call it; without it an iteration is the epoch behind the last one.
        """
        check_count("epoch", epoch, least=0)
        if epoch != self._begins:
            self._begun().seek(0, epoch=epoch)
            self._renew(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return where its user is, in values of JSON; see `Loader.state_dict`."""
        if self._earlier:
            return self._earlier[0]
        return self._begun().state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next iteration go on from a state of this pipeline, of this or another rank.

        Raises:
            ResumeError: it does not fit; it says what changed.
        """
        self._begun(state)
        self._renew(int(state["epoch"]))

    def close(self) -> None:
        """End the run. Tensors that were given stay valid. Safe to call twice."""
        if self._loader is not None:
            self._loader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"EpochLoader({self.pipeline!r})"

    def _begun(self, state: Mapping[str, Any] | None = None) -> TorchLoader:
        """Return what runs the pipeline, from `state` on where one is given."""
        own = None if state is None else _own(self.pipeline, state)
        if self._loader is None:
            loader = self.pipeline.loader(epochs=None, state=own, **self._options)
            loader.leave_quietly()  # frameworks close nothing: they let go of it
            try:
                self._loader = TorchLoader(loader, **self._torch)
            except BaseException:
                loader.close()
                raise
            self._renew(0)
        elif own is not None:
            self._loader.load_state_dict(own)
        return self._loader

    def _renew(self, epoch: int) -> None:
        """Iterate anew over what is left of `epoch`, and all that follow."""
        assert self._loader is not None
        self._epochs, self._begins = self._loader.by_epoch(), epoch
        self._earlier.clear()


def _own(pipeline: Pipeline, state: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return `state` as one of this rank: of another rank the place is left, which is the same."""
    shares = state.get("ranks") or {}
    nodes = walk([pipeline.node])
    names = unique_names(nodes)
    another = False
    for node in nodes:
        shard = None if node.stage is None else node.stage.operation
        share = shares.get(names.get(node, ""))
        if not isinstance(shard, Shard) or share is None:
            continue
        if share.get("world") != shard.world_size or "done" in share:
            return state  # not for us to judge
        another = another or share.get("rank") != shard.rank
    if not another:
        return state
    return {key: value for key, value in state.items() if key not in ("nodes", "ranks")}
