"""The kernel in C; what everything means is said in `splitpipe.transport.native.twin`."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitpipe.transport.base import Buffer

NAME: str

def address(array: NDArray[Any], /) -> int: ...
def drain(descriptor: int, /) -> list[int] | None: ...
def read(stream: Buffer, places: Buffer, held: list[NDArray[np.uint8]], /) -> Any: ...
def write(
    value: object, limit: int, spans: tuple[int, ...], /
) -> tuple[bytes, bytes, list[tuple[int, NDArray[Any]]] | None, int] | None: ...
