"""One array in numpy's ``.npy`` form.

Responsible for: reading the header of an ``.npy`` file that somebody else wrote, and the array it
describes. Never unpickles: an array of objects is refused.

Rules:
- the header says how many bytes follow; it must be exactly so many before an array is made;
- a header is data: it is parsed as a literal of bounded size, never evaluated.
"""

from __future__ import annotations

import ast
import functools
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from splitpipe.errors import FormatError

__all__ = ["HEADER_NBYTES", "NpyHeader", "read_header"]

# Enough for the header of any plain array: numpy pads it to a multiple of 64 bytes.
HEADER_NBYTES = 256
_TEXT_NBYTES_LIMIT = 4096
_MAGIC = b"\x93NUMPY"
_MAX_AXES = 32


@dataclass(frozen=True, slots=True)
class NpyHeader:
    """What an ``.npy`` file says about its array.

    Attributes:
        nbytes: of the header itself: where the values begin.
        dtype: of the values, as stored.
        fortran_order: whether the first axis varies fastest.
        shape: of the array.
    """

    nbytes: int
    dtype: np.dtype[Any]
    fortran_order: bool
    shape: tuple[int, ...]

    @property
    def values_nbytes(self) -> int:
        """Bytes of the values."""
        return math.prod(self.shape) * self.dtype.itemsize

    def array(self, values: bytes | memoryview) -> npt.NDArray[Any]:
        """The array over ``values``: a view, in the byte order in which it is stored."""
        order: Literal["C", "F"] = "F" if self.fortran_order else "C"
        return np.ndarray(self.shape, self.dtype, values, order=order)


def read_header(data: bytes | memoryview, size: int, where: str) -> NpyHeader:
    """Read the header of an ``.npy`` file.

    Args:
        data: its first bytes; `HEADER_NBYTES` are enough for almost all.
        size: of the whole file in bytes.
        where: what to call it in errors.

    Raises:
        FormatError: it is no ``.npy`` file, holds objects, or its size is not what it says.

    Example:
        >>> import io, numpy as np
        >>> file = io.BytesIO()
        >>> np.save(file, np.zeros((2, 3)))
        >>> header = read_header(file.getvalue(), len(file.getvalue()), "example.npy")
        >>> header.dtype, header.shape, header.values_nbytes
        (dtype('float64'), (2, 3), 48)
    """
    start = bytes(data[:12])
    if len(start) < 10 or start[:6] != _MAGIC:
        raise FormatError(f"{where} is no .npy array: it begins with {start[:6]!r}")
    if start[6] == 1:
        at, length = 10, int.from_bytes(start[8:10], "little")
    elif start[6] in (2, 3) and len(start) == 12:
        at, length = 12, int.from_bytes(start[8:12], "little")
    else:
        raise FormatError(f"{where}: version {start[6]} of the .npy form is unknown")
    if length > min(_TEXT_NBYTES_LIMIT, size - at) or len(data) < at + length:
        raise FormatError(
            f"{where}: a header of {length} bytes in an .npy array of {size}; it was cut, is "
            "damaged, or has fields with names, which are not read in place"
        )
    try:
        dtype, fortran_order, shape = _parse(bytes(data[at : at + length]))
    except ValueError as error:
        raise FormatError(f"{where}: {error}") from error
    header = NpyHeader(at + length, dtype, fortran_order, shape)
    if header.nbytes + header.values_nbytes != size:
        raise FormatError(
            f"{where} has {size} bytes, an array of shape {shape} and dtype {dtype} takes "
            f"{header.nbytes + header.values_nbytes}: it was cut or is damaged"
        )
    return header


@functools.lru_cache(maxsize=256)
def _parse(text: bytes) -> tuple[np.dtype[Any], bool, tuple[int, ...]]:
    """What a header's text says; a ValueError says why it cannot be read."""
    try:
        said = ast.literal_eval(text.decode("latin1").strip())
        dtype = np.dtype(said["descr"])
        fortran_order, shape = said["fortran_order"], said["shape"]
        plain = isinstance(said["descr"], str) and len(said) == 3
    except Exception as error:  # whatever a literal or numpy makes of bytes that are no header
        raise ValueError("the header of the .npy array is damaged") from error
    if dtype.hasobject:
        raise ValueError(
            "it holds Python objects, which would have to be unpickled: that is never done; "
            "save it anew as an array of numbers"
        )
    if not plain or dtype.names is not None or dtype.subdtype is not None or not dtype.itemsize:
        raise ValueError(f"arrays of {dtype} are not read in place")
    good = (
        isinstance(fortran_order, bool)
        and isinstance(shape, tuple)
        and len(shape) <= _MAX_AXES
        and all(type(axis) is int and 0 <= axis < 1 << 48 for axis in shape)
    )
    if not good:
        raise ValueError("the header of the .npy array is damaged")
    return dtype, fortran_order, shape
