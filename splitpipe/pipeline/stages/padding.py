"""Rows of different lengths as one array.

Responsible for: `Pad`, which says how; `pad_rows`, which does it; and `padding_waste`, the number
that says what it costs.

Rules:
- nothing is cast and nothing cut: rows of different types, or longer than they may be, are errors;
- lengths and masks say what was padded, so that it can be undone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from splitpipe.errors import GraphError
from splitpipe.pipeline.allocate import empty
from splitpipe.pipeline.stages.checks import settle, whole

__all__ = ["Pad", "Padded", "Ragged", "filler", "pad_rows", "padding_waste", "ragged_rule"]


@dataclass(frozen=True)
class Pad:
    """How rows of different lengths become one array: each is filled up to the longest.

    Args:
        value: what they are filled with.
        multiple_of: the length of the array is rounded up to a multiple of this.
        length: the length of the array, always; a longer row is an error. None: that of the
            longest row.
        lengths: add the rows' own lengths: in a dict under the name of the column with
            ``_lengths`` behind it; anywhere else the column becomes a dict of ``values`` and
            ``lengths``.
        mask: likewise, as ``_mask`` or ``mask``, an array that is True where values are a row's
            own.

    Example:
        >>> from splitpipe.pipeline.stages.collate import Stack
        >>> stack = Stack(2, Pad(value=-1, lengths=True))
        >>> stack.add({"ids": np.arange(3)})
        >>> stack.add({"ids": np.arange(1)})
        >>> stack.finish()
        {'ids': array([[ 0,  1,  2],
               [ 0, -1, -1]]), 'ids_lengths': array([3, 1])}
    """

    value: float | str | bytes = 0
    multiple_of: int = 1
    length: int | None = None
    lengths: bool = False
    mask: bool = False

    def __post_init__(self) -> None:
        settle(self, multiple_of=whole("multiple_of", self.multiple_of, least=1))
        if self.length is not None:
            settle(self, length=whole("length", self.length, least=1))
            if self.multiple_of > 1:
                raise GraphError("a length that is given is not rounded: leave out multiple_of")


Ragged = str | Pad | Mapping[str, Pad]
"""What a user may say of rows of different lengths: ``"list"``, ``"pad"``, a `Pad` for every column
that has one axis or more, or one for each column that is named."""


def ragged_rule(ragged: Ragged) -> Pad | Mapping[str, Pad] | None:
    """Return what `ragged` means; None: such rows stay a list.

    Raises:
        GraphError: it means nothing.
    """
    if isinstance(ragged, Pad):
        return ragged
    if isinstance(ragged, Mapping):
        if all(isinstance(pad, Pad) for pad in ragged.values()):
            return dict(ragged)
    elif ragged == "list":
        return None
    elif ragged == "pad":
        return Pad()
    raise GraphError(
        f"ragged must be 'list', 'pad', a Pad, or a dict from columns to Pads, not {ragged!r}"
    )


class Padded(NamedTuple):
    """What `pad_rows` made.

    Attributes:
        values: of shape (rows, length, ...).
        lengths: of the rows, int64; None where nobody asked.
        mask: bool, of shape (rows, length); None where nobody asked.
    """

    values: NDArray[Any]
    lengths: NDArray[np.int64] | None
    mask: NDArray[np.bool_] | None


def pad_rows(rows: Sequence[Any], pad: Pad, name: str = "") -> Padded:
    """Return rows (arrays, or lists of numbers) as one array, each filled up behind its end.

    Args:
        rows: one at least; all of one type and number of axes.
        pad: how.
        name: of the column, for messages.

    Raises:
        ValueError: they cannot be put into one array without changing them; the message says which
            row, and why.
    """
    arrays = _arrays(rows, name)
    first = arrays[0]
    shape = list(np.max([array.shape for array in arrays], axis=0).tolist())
    if (pad.lengths or pad.mask) and any(array.shape[1:] != first.shape[1:] for array in arrays):
        raise ValueError(
            f"rows{name} differ in more than their first axis; lengths and masks are of that one"
        )
    if pad.length is not None and shape[0] > pad.length:
        longest = max(range(len(arrays)), key=lambda i: len(arrays[i]))
        raise ValueError(
            f"row {longest} of a batch{name} has a length of {shape[0]}, more than the "
            f"{pad.length} that Pad(length=) allows; cut it before, or allow more"
        )
    shape[0] = pad.length or -(-shape[0] // pad.multiple_of) * pad.multiple_of
    values = empty((len(arrays), *shape), first.dtype)
    alike = all(list(array.shape) == shape for array in arrays)
    if not alike:
        values[...] = filler(pad.value, first.dtype, name)
    for target, array in zip(values, arrays, strict=True):
        target[tuple(map(slice, array.shape))] = array
    lengths = np.fromiter(map(len, arrays), np.int64, len(arrays))
    mask = None
    if pad.mask:
        mask = empty((len(arrays), shape[0]), np.bool_)
        np.less(np.arange(shape[0]), lengths[:, None], out=mask)
    return Padded(values, lengths if pad.lengths else None, mask)


def padding_waste(measured: Mapping[str, float]) -> float:
    """Return the part of batches or packs that is padding, from 0 to below 1.

    Args:
        measured: with the sums ``tokens`` (what items have) and ``padded`` (what they take with
            their padding), as `bucket`, `batch_by_cost` and `pack` measure them.

    Example:
        >>> padding_waste({"tokens": 75, "padded": 100})
        0.25
    """
    padded = measured.get("padded", 0)
    return 1 - measured.get("tokens", 0) / padded if padded else 0.0


def _arrays(rows: Sequence[Any], name: str) -> list[NDArray[Any]]:
    arrays = [_array(i, row, name) for i, row in enumerate(rows)]
    typed = [a for a, row in zip(arrays, rows, strict=True) if len(a) or not isinstance(row, list)]
    # An empty list says nothing of its type; numpy would call it float64.
    dtype = typed[0].dtype if typed else arrays[0].dtype
    ndim = typed[0].ndim if typed else arrays[0].ndim
    for i, (array, row) in enumerate(zip(arrays, rows, strict=True)):
        if isinstance(row, list) and not row:
            array = arrays[i] = np.empty((0,) * ndim, dtype)
        if array.dtype != dtype or array.ndim != ndim or array.dtype.hasobject:
            raise ValueError(
                f"row {i} of a batch{name} cannot be padded: it is {_kind(array)}, "
                f"others are {dtype} with {ndim} axes; make them alike with map"
            )
    return arrays


def _array(i: int, row: Any, name: str) -> NDArray[Any]:
    try:
        return np.asarray(row)
    except ValueError as error:  # lists of lists of different lengths
        raise ValueError(f"row {i} of a batch{name} cannot be padded: {error}") from error


def _kind(array: NDArray[Any]) -> str:
    return f"{array.dtype} with {array.ndim} ax{'i' if array.ndim == 1 else 'e'}s"


def filler(value: Any, dtype: np.dtype[Any], name: str) -> Any:
    """Return `value`, if it can stand in an array of `dtype` as what it is."""
    number = isinstance(value, int | float | np.number | np.bool_)
    if dtype.kind == "b":
        fits = number and value in (0, 1)
    elif dtype.kind in "iu":
        bounds = np.iinfo(dtype)
        fits = number and value == value // 1 and bounds.min <= value <= bounds.max
    elif dtype.kind in "fc":
        limit = float(np.finfo(dtype).max)
        fits = number and (abs(value) <= limit or value in (np.inf, -np.inf) or value != value)
    elif dtype.kind in "SU":
        fits = isinstance(value, bytes if dtype.kind == "S" else str)
        fits = fits and np.array(value, dtype).item() == value
    else:
        fits = False
    if not fits:
        raise ValueError(f"rows{name} of {dtype} cannot be padded with {value!r}")
    return value
