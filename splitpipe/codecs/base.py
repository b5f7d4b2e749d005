"""What a codec is, and what a reader may ask of it.

Responsible for: the protocol `Codec` and the value `Reading`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt

__all__ = ["Codec", "Reading"]


@dataclass(frozen=True, slots=True)
class Reading:
    """What a reader wants of values beyond their bytes.

    Attributes:
        decode: whether images, sound and video are decoded; else they are bytes.
        allow_pickle: whether pickled values may be read, which runs whatever they say.
    """

    decode: bool = False
    allow_pickle: bool = False


class Codec(Protocol):
    """Turns the values of one field into bytes, and back. Never given ``None``."""

    def encode(self, value: Any) -> bytes:
        """The bytes of a value.

        Raises:
            FormatError: it does not fit the field.
        """

    def decode(self, data: bytes) -> Any:
        """The value of bytes.

        Raises:
            CorruptRecord: they are no value of the field.
        """

    def decode_into(self, records: Sequence[bytes], out: npt.NDArray[Any]) -> None:
        """The values of several records of a stackable field, into an array of them."""
