"""Arrays of a batch as tensors, over the same memory.

Responsible for: `tensors`; `collate`, which makes batches as a `DataLoader` does, of arrays; and
`mapped`, which finds tensors in nested values.

Rules:
- a tensor is over the array's memory, and holds the array: a slot of shared memory goes back when
  the last tensor over it is gone, also where only a view of one, or a gradient, is left;
- a tensor cannot be read-only. Memory that may not be written to is copied, so that nothing which
  is done to a tensor shows anywhere else; unless its maker says that nobody else has it;
- what torch cannot stand for stays what it is: strings, objects, dates, numbers that it lacks;
- lists, tuples (named ones, too) and dicts are looked into, and keep their shape.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils.data import default_collate

__all__ = ["collate", "mapped", "tensors"]

_KINDS = "biufc"
_WIDEST = 16  # bytes of a number; longer ones are long doubles, which torch lacks


class _Writable:
    """An array's memory, as memory that may be written to."""

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self._array = array
        told = dict(array.__array_interface__)
        told["data"] = (told["data"][0], False)
        self.__array_interface__ = told


def tensors(*, unshared: bool = False) -> Callable[[Any], Any]:
    """Return a function that makes tensors of the arrays in a value.

    Args:
        unshared: nobody else has the memory of the arrays: those that may not be written to need
            no copy either.

    Example:
        >>> import numpy as np
        >>> from splitpipe.integrations.torch import tensors
        >>> ids = np.arange(3)
        >>> batch = tensors()({"ids": ids, "names": ["a", "b", "c"]})
        >>> batch["ids"].data_ptr() == ids.ctypes.data, batch["names"]
        (True, ['a', 'b', 'c'])
    """
    writable = _unlocked if unshared else np.copy

    def tensor(array: np.ndarray[Any, Any]) -> Any:
        if array.dtype.kind not in _KINDS or array.dtype.itemsize > _WIDEST:
            return array
        if not array.dtype.isnative:
            array = array.astype(array.dtype.newbyteorder("="))
        elif not array.flags.writeable:
            array = writable(array)
        try:
            return torch.from_numpy(array)
        except TypeError:  # a type of numbers that torch does not have
            return array
        except ValueError:  # strides that it does not have: negative, or not of whole items
            return torch.from_numpy(array.copy())

    def convert(value: Any) -> Any:
        return mapped(np.ndarray, tensor, value)

    return convert


def collate(items: list[Any]) -> Any:
    """Return the batch that a `DataLoader` makes of `items`, with arrays in place of tensors: those
    cross to another process in shared memory.

    For ``collate=`` of `Pipeline.batch`, where items hold tensors.

    Example:
        >>> import splitpipe as sp, torch
        >>> from splitpipe.integrations.torch import collate
        >>> pipe = sp.Pipeline([(torch.zeros(3), 1), (torch.ones(3), 0)]).batch(2, collate=collate)
        >>> with pipe.loader(executor="inline").to_torch() as loader:
        ...     images, labels = next(loader)
        >>> images.shape, labels
        (torch.Size([2, 3]), tensor([1, 0]))
    """
    return mapped(torch.Tensor, torch.Tensor.numpy, default_collate(items))


def mapped(kind: type, function: Callable[[Any], Any], value: Any) -> Any:
    """Return `value` with what `function` makes of every `kind` in it.

    Example:
        >>> mapped(int, str, {"a": [1, (2, None)]})
        {'a': ['1', ('2', None)]}
    """
    found = type(value)
    if found is kind:
        return function(value)
    if found is dict:
        return {key: mapped(kind, function, item) for key, item in value.items()}
    if found is list or found is tuple:
        return found([mapped(kind, function, item) for item in value])
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return found(*(mapped(kind, function, item) for item in value))
    return value


def _unlocked(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.asarray(_Writable(array))
