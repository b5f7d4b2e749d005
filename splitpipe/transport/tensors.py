"""Whose a tensor of PyTorch is.

Responsible for: looking into tensors for `splitpipe.transport.ownership`, and copying plain ones
(pickling takes 10 ns a byte on each side). Never imports torch: who has a tensor has it.

Rules:
- plain is what its numbers say completely: on the CPU, dense, outside of any graph of gradients,
  without attributes or hooks;
- a tensor's memory is its own if nothing else counts on it: no other tensor, no storage object, no
  array of numpy or of anybody else (those make it fixed in size). A view is another tensor's;
- the counts of a tensor that was just made are measured, not assumed; where torch does not tell
  them, every tensor is somebody else's.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

__all__ = ["copied_tensor", "is_tensor", "tensor_nbytes"]


def is_tensor(kind: type) -> bool:
    """Whether `kind` is torch's own class of tensors."""
    return kind.__module__ == "torch" and kind is getattr(sys.modules["torch"], "Tensor", None)


def tensor_nbytes(tensor: Any, strict: bool = True) -> int | None:
    """Return the bytes of a tensor whose only holder is the caller, None where others may have
    its memory.
    """
    del strict
    if not _plain(tensor) or not tensor.untyped_storage().resizable():
        return None
    fresh = _fresh()
    if fresh is None or any(one > most for one, most in zip(_counts(tensor), fresh, strict=True)):
        return None
    return int(tensor.nbytes)


def copied_tensor(tensor: Any) -> Any:
    """Return a copy of a plain tensor; None where it is not plain."""
    return tensor.clone() if _plain(tensor) else None


def _plain(tensor: Any) -> bool:
    torch: Any = sys.modules["torch"]
    return (
        tensor.device.type == "cpu"
        and tensor.layout is torch.strided
        and not (tensor.requires_grad or tensor.is_quantized or tensor.is_conj() or tensor.is_neg())
        and not vars(tensor)
        and not tensor._backward_hooks
        and not tensor.untyped_storage().is_shared()
    )


def _counts(tensor: Any) -> tuple[int, int, int]:
    """How often its memory, itself, and the object that stands for its memory are referred to."""
    storage = tensor.untyped_storage()
    memory = sys.modules["torch"]._C._storage_Use_Count(storage._cdata)
    return memory, tensor._use_count(), sys.getrefcount(storage)


@cache
def _fresh() -> tuple[int, int, int] | None:
    torch: Any = sys.modules["torch"]
    try:
        return _counts(torch.empty(1))
    except AttributeError:
        return None
