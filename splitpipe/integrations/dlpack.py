"""Arrays from one library to another without copying them: the DLPack protocol.

Responsible for: `to_dlpack`, which lets any library take the arrays of a batch, and `from_dlpack`,
which takes what any library has made.

Rules:
- memory is shared, and lives as long as anybody looks at it: a batch's place in shared memory is
  not used again while a tensor of another library is over it;
- what was read-only stays so for who understands it; who does not gets a copy, never a way to write
  into memory that others read;
- what is no array of numbers stays what it is.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from splitpipe.errors import FormatError

__all__ = ["SharedArray", "from_dlpack", "to_dlpack"]

_KINDS = "biufc"
_CPU = 1


class SharedArray:
    """An array of numpy that any library takes by ``from_dlpack``; made by `to_dlpack`.

    Args:
        array: of numbers.
    """

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self._array = array

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        del stream  # of a device: this is memory of the host
        array = self._array
        if max_version is None or max_version < (1, 0):
            # Before version 1 nobody can be told that memory is read-only.
            if copy is False and not array.flags.writeable:
                raise BufferError("the array is read-only, and its taker cannot be told so")
            return (array if array.flags.writeable and not copy else array.copy()).__dlpack__()
        return array.__dlpack__(max_version=max_version, dl_device=dl_device, copy=copy)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._array.__dlpack_device__()

    def __repr__(self) -> str:
        return f"SharedArray({self._array.dtype}, {self._array.shape})"


def to_dlpack(batch: Any) -> Any:
    """A batch whose arrays any library takes by its ``from_dlpack``, without a copy.

    Args:
        batch: arrays, or dicts, lists and tuples of them.

    Example:
        >>> import numpy as np
        >>> numbers = np.arange(3)
        >>> shared = to_dlpack({"x": numbers, "name": "a"})
        >>> taken = np.from_dlpack(shared["x"])
        >>> taken.tolist(), np.shares_memory(taken, numbers), shared["name"]
        ([0, 1, 2], True, 'a')
    """
    kind = type(batch)
    if kind is dict:
        return {key: to_dlpack(value) for key, value in batch.items()}
    if kind is list or kind is tuple:
        return kind(map(to_dlpack, batch))
    if isinstance(batch, np.ndarray) and batch.dtype.kind in _KINDS:
        native = batch.dtype.isnative
        return SharedArray(batch if native else batch.astype(batch.dtype.newbyteorder("=")))
    return batch


def from_dlpack(batch: Any) -> Any:
    """A batch whose arrays are numpy's, of what other libraries have made, without a copy.

    In a stage (``.map(from_dlpack)``) it lets tensors of any library be stacked, sent and stored.

    Args:
        batch: what has ``__dlpack__``, or dicts, lists and tuples of it.

    Raises:
        FormatError: an array lies on another device, or is of a type that numpy lacks.

    Example:
        >>> import numpy as np
        >>> from_dlpack((to_dlpack(np.arange(3)), "a"))
        (array([0, 1, 2]), 'a')
    """
    kind = type(batch)
    if kind is dict:
        return {key: from_dlpack(value) for key, value in batch.items()}
    if kind is list or kind is tuple:
        return kind(map(from_dlpack, batch))
    if isinstance(batch, np.ndarray | np.generic) or not hasattr(batch, "__dlpack__"):
        return batch
    device = batch.__dlpack_device__()
    if int(device[0]) != _CPU:
        raise FormatError(
            f"a {type(batch).__name__} lies on device {tuple(map(int, device))}, not in memory of "
            "the host: move it there first"
        )
    try:
        return np.from_dlpack(batch)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise FormatError(f"numpy cannot take a {type(batch).__name__}: {error}") from error
