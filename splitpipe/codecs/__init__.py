"""Values as bytes, for one column.

Responsible for: `codec` (the `Codec` of a field) and `Zstd`. ``plain`` has the codecs of numbers,
arrays, text and objects, ``media`` those of images, sound and video, ``compression`` the one that
wraps another. What fits a field is known by ``schema``; where bytes lie, by ``storage``.

Rules:
- whatever the bytes are, decoding ends in a value or in ``CorruptRecord``, and allocates no more
  than the bytes can stand for;
- nothing is unpickled unless the reader, not the data, asks for it;
- a codec serves several threads at once, and is made where it is used: it does not pickle.
"""

from __future__ import annotations

from splitpipe.codecs.base import Codec, Reading
from splitpipe.codecs.compression import Compressed, Zstd, train
from splitpipe.codecs.plain import plain_codec
from splitpipe.schema import Field

__all__ = ["Codec", "Compressed", "Reading", "Zstd", "codec", "train"]


def codec(
    field: Field, *, reading: Reading | None = None, dictionary: bytes = b"", level: int = 3
) -> Codec:
    """The codec of a field.

    Args:
        field: the column's type.
        reading: what is wanted of values when they are decoded.
        dictionary: what compressed values were, or shall be, compressed with.
        level: how hard zstd tries.

    Raises:
        FormatError: it needs a package that is not installed; the message names the extra.

    Example:
        >>> import numpy as np
        >>> pairs = codec(Field("ndarray", "uint16", (None, 2)))
        >>> pairs.decode(pairs.encode([[1, 2], [3, 4]]))
        array([[1, 2],
               [3, 4]], dtype=uint16)
    """
    inner = plain_codec(field, reading or Reading())
    if field.compression is None:
        return inner
    return Compressed(inner, field, dictionary, level)
