"""The type of one column.

Responsible for: `Field` as a value: what may be said, under which name it is kept, its JSON form,
and which field a value suggests. Whether a value fits is the business of ``values``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from splitpipe.errors import FormatError

__all__ = [
    "KINDS",
    "Field",
    "FieldLike",
    "audio",
    "image",
    "ndarray",
    "scalar",
    "shape_text",
    "video",
]

KINDS: Final = (
    "bytes",
    "str",
    "json",
    "ndarray",
    "scalar",
    "image",
    "audio",
    "video",
    "pickle",
)
COMPRESSIONS: Final = ("zstd",)

_MOST_AXES: Final = 32
_LARGEST_FIXED: Final = 1 << 48


@dataclass(frozen=True, slots=True, repr=False)
class Field:
    """The type of one column.

    Attributes:
        kind: ``bytes``, ``str``, ``json``, ``ndarray``, ``scalar``, ``image``, ``audio``,
            ``video`` or ``pickle``.
        dtype: numpy's name of the element type, for ``ndarray`` and ``scalar``.
        shape: of an ``ndarray``: its length along every axis, ``None`` for an axis of any
            length; ``None`` instead of the tuple for any shape at all.
        compression: ``None`` or ``"zstd"``.

    Raises:
        FormatError: this is no type of column.

    Example:
        >>> Field.parse("int64")
        Field('int64')
        >>> Field.parse(ndarray("uint8", (None, 3))).stackable, Field.parse("int64").stackable
        (False, True)
    """

    kind: str
    dtype: str | None = None
    shape: tuple[int | None, ...] | None = None
    compression: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise FormatError(
                f"a column cannot be of kind {self.kind!r}; kinds: {', '.join(KINDS)}"
            )
        if self.compression is not None and self.compression not in COMPRESSIONS:
            raise FormatError(f"compression must be None or 'zstd', not {self.compression!r}")
        if self.kind in ("ndarray", "scalar"):
            # Kept under numpy's own name, however it was said.
            object.__setattr__(self, "dtype", _dtype_name(self.dtype))
        elif self.dtype is not None:
            raise FormatError(f"a column of kind {self.kind!r} has no dtype")
        if self.kind == "scalar":
            object.__setattr__(self, "shape", ())
        elif self.kind == "ndarray":
            object.__setattr__(self, "shape", _checked_shape(self.shape, self.numpy_dtype))
        elif self.shape is not None:
            raise FormatError(f"a column of kind {self.kind!r} has no shape")

    @classmethod
    def parse(cls, given: FieldLike) -> Field:
        """A field from any way of saying it: a `Field`, a kind, a dtype, or its JSON form.

        Raises:
            FormatError: it means no type of column.

        Example:
            >>> Field.parse("str"), Field.parse(float), Field.parse({"type": "image"})
            (Field('str'), Field('float64'), Field('image'))
        """
        if isinstance(given, Field):
            return given
        if isinstance(given, Mapping):
            return cls.from_json(given)
        if isinstance(given, str) and given in KINDS and given not in ("ndarray", "scalar"):
            return cls(given)
        if given is bytes or given is str:
            return cls("bytes" if given is bytes else "str")
        if given == "ndarray":
            raise FormatError("an ndarray column needs its dtype: sp.ndarray('float32', (3, 4))")
        return cls("scalar", _dtype_name(given))

    @classmethod
    def of(cls, value: Any) -> Field:
        """The field that a value suggests.

        Raises:
            FormatError: it suggests none: say the schema.

        Example:
            >>> import numpy as np
            >>> Field.of("text"), Field.of(3), Field.of([1, 2]), Field.of(np.zeros((2, 3)))
            (Field('str'), Field('int64'), Field('json'), Field('ndarray', 'float64', (2, 3)))
        """
        if isinstance(value, np.ndarray) and value.ndim:
            return cls("ndarray", _dtype_name(value.dtype), value.shape)
        if isinstance(value, np.generic | np.ndarray) and value.dtype.kind not in "SU":
            return cls("scalar", _dtype_name(value.dtype))
        for types, said in _SUGGESTED:
            if isinstance(value, types):
                return cls.parse(said)
        if type(value).__module__.partition(".")[0] == "PIL":
            return cls("image")
        what = "None" if value is None else f"a {type(value).__name__}"
        raise FormatError(f"no type of column follows from {what}: say the schema")

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        """The element type as it is stored: little-endian."""
        return np.dtype(self.dtype).newbyteorder("<")

    @property
    def stackable(self) -> bool:
        """Whether several values make one array: a scalar, or an array of a fixed shape."""
        return self.shape is not None and None not in self.shape

    @property
    def fixed_shape(self) -> tuple[int, ...]:
        """The shape of every value of a stackable column."""
        assert self.shape is not None
        return tuple(length for length in self.shape if length is not None)

    @property
    def nbytes(self) -> int | None:
        """Bytes of every value before compression, ``None`` when they differ."""
        if not self.stackable:
            return None
        return math.prod(self.fixed_shape) * self.numpy_dtype.itemsize

    def to_json(self) -> dict[str, Any]:
        """The field as JSON; what has its usual value is left out."""
        document: dict[str, Any] = {"type": self.kind}
        if self.dtype is not None:
            document["dtype"] = self.dtype
        if self.kind == "ndarray":
            document["shape"] = None if self.shape is None else list(self.shape)
        if self.compression is not None:
            document["compression"] = self.compression
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Field:
        """The field of a JSON form.

        Raises:
            FormatError: it is none.
        """
        if not isinstance(document, Mapping):
            raise FormatError(f"a column's type is an object, not {document!r}")
        shape = document.get("shape")
        if shape is not None and not isinstance(shape, list | tuple):
            raise FormatError(f"a shape must be a list, not {shape!r}")
        dtype, kind, compression = (document.get(key) for key in ("dtype", "type", "compression"))
        for said in (dtype, kind, compression):
            if said is not None and not isinstance(said, str):
                raise FormatError(f"a column's type cannot have {said!r} in it")
        if kind == "scalar":
            shape = None
        return cls(str(kind), dtype, None if shape is None else tuple(shape), compression)

    def compressed(self, compression: str | None = "zstd") -> Field:
        """The same field with another compression.

        Example:
            >>> Field.parse("str").compressed()
            Field('str', compression='zstd')
        """
        return replace(self, compression=compression)

    @property
    def description(self) -> str:
        """The type in a few words, for people.

        Example:
            >>> Field("ndarray", "uint16", (None, 2)).description
            'ndarray uint16 (any, 2)'
        """
        text = self.dtype if self.kind == "scalar" and self.dtype else self.kind
        if self.kind == "ndarray":
            shape = "any shape" if self.shape is None else ", ".join(map(str, self.shape))
            text = f"ndarray {self.dtype} ({shape.replace('None', 'any')})"
        return text + (f" {self.compression}" if self.compression else "")

    def __repr__(self) -> str:
        text = repr(self.dtype if self.kind == "scalar" else self.kind)
        if self.kind == "ndarray":
            text += f", {self.dtype!r}"
            text += "" if self.shape is None else f", {shape_text(self.shape)}"
        packed = f", compression={self.compression!r}" if self.compression else ""
        return f"Field({text}{packed})"


FieldLike = Field | str | type | np.dtype[Any] | Mapping[str, Any]

_SUGGESTED: Final[tuple[tuple[tuple[type, ...], str], ...]] = (
    ((bytes, bytearray, memoryview), "bytes"),
    ((str,), "str"),
    ((bool,), "bool"),
    ((int,), "int64"),
    ((float,), "float64"),
    ((complex,), "complex128"),
    ((dict, list, tuple), "json"),
)


def ndarray(dtype: Any, shape: tuple[int | None, ...] | int | None = None) -> Field:
    """A column of arrays.

    Args:
        dtype: element type: booleans, integers, floats, complex numbers, dates.
        shape: length along every axis, ``None`` for an axis of any length; without it, arrays
            may have any shape.

    Example:
        >>> ndarray("uint16", (2048,)).nbytes
        4096
        >>> ndarray("float64", (None, 3)).stackable
        False
    """
    if isinstance(shape, int):
        shape = (shape,)
    return Field("ndarray", _dtype_name(dtype), None if shape is None else tuple(shape))


def scalar(dtype: Any) -> Field:
    """A column of single numbers, booleans or dates; ``"int64"`` for short.

    Example:
        >>> scalar("float32")
        Field('float32')
    """
    return Field("scalar", _dtype_name(dtype))


def image() -> Field:
    """A column of encoded images (PNG, JPEG, ...), decoded on demand by the extra ``image``.

    Example:
        >>> image()
        Field('image')
    """
    return Field("image")


def audio() -> Field:
    """A column of encoded sound (WAV, FLAC, ...), decoded on demand by the extra ``audio``.

    Example:
        >>> audio()
        Field('audio')
    """
    return Field("audio")


def video() -> Field:
    """A column of encoded video (MP4, ...), decoded on demand by the extra ``video``.

    Example:
        >>> video()
        Field('video')
    """
    return Field("video")


def shape_text(shape: tuple[int | None, ...]) -> str:
    """A shape as Python writes it."""
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"


def _dtype_name(given: Any) -> str:
    """Numpy's name of an element type that this format stores."""
    try:
        dtype = np.dtype(given)
    except (TypeError, ValueError, SyntaxError) as error:
        raise FormatError(f"{given!r} is no type of column and no dtype of numpy") from error
    kind, size = dtype.kind, dtype.itemsize
    if given is None or dtype.hasobject or dtype.subdtype is not None:
        raise FormatError(f"a column cannot have elements of {given!r}")
    if kind in "mM" and np.datetime_data(dtype)[0] == "generic":
        raise FormatError(f"{dtype.name} needs a unit, for example {dtype.name}[ns]")
    if kind not in "biufcmM" or size > (16 if kind == "c" else 8):
        raise FormatError(
            f"a column cannot have elements of dtype {dtype.name!r}: use booleans, integers, "
            "floats, complex numbers or dates, and str or bytes for text"
        )
    return str(dtype.name)


def _checked_shape(shape: Any, dtype: np.dtype[Any]) -> tuple[int | None, ...] | None:
    if shape is None:
        return None
    lengths = tuple(None if n is None else _length(n, shape) for n in shape)
    if len(lengths) > _MOST_AXES:
        raise FormatError(f"a shape may have at most {_MOST_AXES} axes")
    if math.prod(n for n in lengths if n is not None) * dtype.itemsize > _LARGEST_FIXED:
        raise FormatError(f"no array of shape {lengths} can be stored: it is too large")
    return lengths


def _length(value: Any, shape: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
        raise FormatError(f"a shape has lengths or None in it, not {value!r}: {shape!r}")
    return int(value)
