"""`TorchLoader`: a loader whose arrays are tensors.

Responsible for: what a training loop in torch holds: the iterator, where it is, its end.

Rules:
- without a device a tensor is over the memory that its batch arrived in: nothing is copied;
- on a CUDA device one batch more than was given is on its way. A state is that of what was given;
- an error comes at its place in the stream, also where it was seen one batch before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self

from splitpipe.integrations.ahead import Ahead
from splitpipe.integrations.torch.staging import Mover, mover_of
from splitpipe.integrations.torch.tensors import tensors
from splitpipe.pipeline.stage import check_count

if TYPE_CHECKING:
    from splitpipe.loader import Loader
    from splitpipe.runtime.statistics import TaskStatistics

__all__ = ["TorchLoader"]


class TorchLoader:
    """The batches of a loader as tensors. Made by `Loader.to_torch`.

    Example:
        >>> import splitpipe as sp
        >>> pipe = sp.Pipeline(range(6)).batch(2)
        >>> with pipe.loader(executor="inline").to_torch() as loader:
        ...     [batch.tolist() for batch in loader]
        [[0, 1], [2, 3], [4, 5]]
    """

    def __init__(
        self,
        loader: Loader,
        *,
        device: Any = None,
        pin_memory: bool | None = None,
        ahead: int | None = None,
    ) -> None:
        check_count("ahead", ahead, least=0)
        self.loader = loader
        """What it reads: also what tells of the run (`Loader.doctor`, `Loader.errors`, ...)."""
        self._mover: Mover = mover_of(device, pin_memory=pin_memory)
        count = int(self._mover.overlaps) if ahead is None else ahead
        self._ahead = Ahead(_sending(loader, self._mover), count, loader.state_dict)
        self._epoch: int | None = None

    @property
    def epoch(self) -> int:
        """The epoch of the last batch; -1 before the first."""
        return self.loader.epoch if self._epoch is None else self._epoch

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        return self._next_of(self.loader)

    def by_epoch(self) -> Iterator[Iterator[Any]]:
        """Yield an iterator over the batches of each epoch that is left, as `Loader.by_epoch`."""
        for items in self.loader.by_epoch():
            yield self._one_epoch(items)
            self._ahead.clear()

    def state_dict(self) -> dict[str, Any]:
        """Return where the loader is; see `Loader.state_dict`."""
        state = self._ahead.state()
        return self.loader.state_dict() if state is None else dict(state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state; see `Loader.load_state_dict`."""
        self._ahead.clear()
        self._epoch = None
        self.loader.load_state_dict(state)

    def seek(self, step: int, *, epoch: int | None = None) -> None:
        """Let batch `step` be the next; see `Loader.seek`."""
        self._give_back()
        self.loader.seek(step, epoch=epoch)

    def look_ahead(self) -> None:
        """Take one batch more than was given from now on, to see the end coming: `at_end`."""
        self._ahead.look()

    @property
    def at_end(self) -> bool:
        """Whether the batch that was given is the last of its epoch; asks for `look_ahead`."""
        return not self._ahead

    def skip_steps(self, start: int, stop: int) -> None:
        """Leave out the batches ``start:stop``; see `Loader.skip_steps`."""
        self._give_back()
        self.loader.skip_steps(start, stop)

    def stats(self) -> tuple[TaskStatistics, ...]:
        """Return what every task did so far; see `Loader.stats`."""
        return self.loader.stats()

    def leave_quietly(self) -> None:
        """See `Loader.leave_quietly`."""
        self.loader.leave_quietly()

    def close(self) -> None:
        """End the run. Tensors that were given stay valid. Safe to call twice."""
        self._ahead.clear()
        self.loader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"TorchLoader({self.loader!r})"

    def _one_epoch(self, items: Iterator[Any]) -> Iterator[Any]:
        while True:
            try:
                batch = self._next_of(items)
            except StopIteration:
                return
            yield batch
            del batch  # or it would be kept until the next one

    def _next_of(self, items: Iterator[Any]) -> Any:
        """Return the next batch, when those behind it are on their way."""
        sent, self._epoch = self._ahead.next_of(items)
        return self._mover.receive(sent)

    def _give_back(self) -> None:
        """Have the loader be where its user is."""
        self._epoch = None
        if self._ahead:
            self.load_state_dict(self.state_dict())


def _sending(loader: Loader, mover: Mover) -> Callable[[Any], tuple[Any, int]]:
    """Return what has a batch be on its way, and tells its epoch.

    No method: what is let go of without being closed ends at once, which a cycle would put off.
    """
    convert = tensors()
    return lambda item: (mover.send(convert(item)), loader.epoch)
