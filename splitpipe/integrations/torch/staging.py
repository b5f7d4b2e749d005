"""Ways of a batch of tensors to where it is wanted.

Responsible for: `Mover`, the seam; `Staying` (they are there already), `Pinning` (into pinned
memory), `Moving` (to any device), `Staging` (to a CUDA device, while it computes), and `mover_of`,
which chooses.

Rules:
- `send` begins and `receive` ends it: what lies between the two goes on while others work;
- pinned memory comes from torch's allocator, which lets nobody have it again before the copy out of
  it is over: there is no buffer here that could be reused too early;
- who receives a batch on a CUDA device may use it on the current stream at once, and its memory is
  not reused before that stream is done with it.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch

from splitpipe.errors import GraphError
from splitpipe.integrations.torch.tensors import mapped

__all__ = ["Mover", "Moving", "Pinning", "Staging", "Staying", "mover_of"]


class Mover(Protocol):
    """Brings batches to where they are wanted."""

    overlaps: bool
    """Whether a batch is on its way while its receiver does something else."""

    def send(self, batch: Any) -> Any:
        """Begin to move the tensors of `batch`; return what `receive` takes."""

    def receive(self, sent: Any) -> Any:
        """Return the batch, where it was wanted."""


class Staying:
    """Batches are where they are wanted."""

    overlaps = False

    def send(self, batch: Any) -> Any:
        """Return `batch`."""
        return batch

    def receive(self, sent: Any) -> Any:
        """Return it."""
        return sent


class Pinning(Staying):
    """Into pinned memory, from which a copy to a CUDA device needs nobody to wait."""

    def send(self, batch: Any) -> Any:
        """Return a copy of `batch` in pinned memory."""
        return mapped(torch.Tensor, _pinned, batch)


class Moving(Staying):
    """To a device, one batch after the other."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def send(self, batch: Any) -> Any:
        """Return `batch` on the device."""
        return mapped(torch.Tensor, lambda one: one.to(self._device), batch)


class Staging:
    """To a CUDA device through pinned memory, on a stream beside the one that computes."""

    overlaps = True

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def send(self, batch: Any) -> Any:
        """Copy `batch` into pinned memory and have the device fetch it."""
        with torch.cuda.stream(self._stream):
            moved = mapped(torch.Tensor, self._fetched, batch)
        return moved, self._stream.record_event()

    def receive(self, sent: Any) -> Any:
        """Return the batch, which the current stream waits for."""
        batch, arrived = sent
        current = torch.cuda.current_stream(self._device)
        current.wait_event(arrived)

        def used(tensor: torch.Tensor) -> torch.Tensor:
            tensor.record_stream(current)
            return tensor

        return mapped(torch.Tensor, used, batch)

    def _fetched(self, tensor: torch.Tensor) -> torch.Tensor:
        return _pinned(tensor).to(self._device, non_blocking=True)


def mover_of(device: Any, *, pin_memory: bool | None) -> Mover:
    """Return what brings batches to `device`.

    Args:
        device: as torch names devices; None or the CPU: they stay.
        pin_memory: whether they go through, or into, pinned memory; None: where that is faster.

    Raises:
        GraphError: there is no such device here.
    """
    try:
        wanted = torch.device("cpu" if device is None else device)
    except RuntimeError as error:
        raise GraphError(f"device={device!r}: {str(error).splitlines()[0]}") from error
    on_gpu = wanted.type == "cuda"
    if (on_gpu or pin_memory) and not torch.cuda.is_available():
        asked = f"device={device!r}" if on_gpu else "pin_memory=True"
        raise GraphError(
            f"{asked}: torch finds no CUDA device here; leave it out to stay on the CPU"
        )
    if on_gpu and pin_memory is not False:
        return Staging(wanted)
    if wanted.type != "cpu":
        return Moving(wanted)
    return Pinning() if pin_memory else Staying()


def _pinned(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor)
