"""Keys and metadata on their way into and out of SQL.

Responsible for: what a key and a metadata dict may be, their form in the catalog, and what may be
given for a ``?`` of a clause.

Rules:
- metadata is JSON and nothing else: what JSON would change without a word (NaN, names that are
  not strings) is refused, numpy's scalars are stored as the numbers they are;
- a declared value has its declared type or is missing; nothing is rounded or parsed.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from types import NoneType
from typing import Any, Final

import numpy as np

from splitpipe.errors import CorruptRecord, FormatError

__all__ = [
    "bindable",
    "check_key",
    "check_keys",
    "declared_value",
    "declared_values",
    "decode_meta",
    "encode_meta",
    "encode_metas",
]

_INT64: Final = range(-(1 << 63), 1 << 63)


def check_keys(keys: Sequence[object]) -> None:
    """Raise ``FormatError`` unless each of these can be a key."""
    if set(map(type, keys)) <= {str} and all(map(str.isascii, keys)):  # type: ignore[arg-type]
        return
    for key in keys:
        check_key(key)


def check_key(key: object) -> None:
    """Raise ``FormatError`` unless this can be a key."""
    if not isinstance(key, str):
        raise FormatError(
            f"a key is a string, not {type(key).__name__} ({key!r}): use str() of it, or None for "
            "a record without a key"
        )
    if not key.isascii():
        _check_utf8(key, "key")


def _check_utf8(text: str, what: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise FormatError(
            f"{what} {text!r:.80} has half of a surrogate pair, which no UTF-8 text can hold"
        ) from error


def encode_metas(metas: Sequence[Mapping[str, Any] | None], first_row: int) -> list[str | None]:
    """What `encode_meta` makes of each, in a third of the time.

    They are encoded as one list, with a word between them that nobody else knows, which is where
    the text is cut.
    """
    there = [meta for meta in metas if meta is not None]
    if not there:
        return [None] * len(metas)
    if set(map(type, there)) <= {dict} and set(map(type, chain.from_iterable(there))) <= {str}:
        between: list[Any] = [_BETWEEN] * (2 * len(there) - 1)
        between[::2] = there
        # What cannot be encoded is looked for one by one.
        with contextlib.suppress(TypeError, ValueError, RecursionError):
            whole = _encoder.encode(between)
            parts = whole[1:-1].split(_CUT)
            if len(parts) == len(there) and whole.isascii():
                texts = iter(parts)
                return [None if meta is None else next(texts) for meta in metas]
    return [encode_meta(meta, row) for row, meta in enumerate(metas, first_row)]


def encode_meta(meta: Mapping[str, Any] | None, row: int) -> str | None:
    """A metadata dict as JSON text.

    Args:
        meta: names and values of JSON; numpy scalars count as numbers.
        row: whose it is, for messages.

    Example:
        >>> encode_meta({"lang": "en", "length": np.int32(3)}, 0)
        '{"lang":"en","length":3}'
    """
    if meta is None:
        return None
    if not isinstance(meta, Mapping):
        raise FormatError(f"metadata of row {row} is a {type(meta).__name__}, not a dict")
    for name in meta:
        if not isinstance(name, str):
            raise FormatError(
                f"metadata of row {row} has the name {name!r}: names are strings in JSON"
            )
    try:
        text = _encoder.encode(meta if isinstance(meta, dict) else dict(meta))
    except (TypeError, ValueError, RecursionError) as error:
        raise FormatError(
            f"metadata of row {row} is no JSON: {error} ({_culprit(meta)}); convert it, leave it "
            "out, or store it in a column"
        ) from error
    if not text.isascii():
        _check_utf8(text, f"metadata of row {row}:")
    return text


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        plain = value.item()
        if isinstance(plain, bool | int | float | str):
            return plain
    raise TypeError(f"a value of type {type(value).__name__}")


_encoder: Final = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain
)


_BETWEEN: Final = secrets.token_hex(16)
_CUT: Final = f',"{_BETWEEN}",'


def _culprit(meta: Mapping[str, Any]) -> str:
    for name, value in meta.items():
        try:
            _encoder.encode(value)
        except (TypeError, ValueError, RecursionError):
            return f"{name!r} is {value!r:.80}"
    return "as a whole"


def decode_meta(text: str | None) -> dict[str, Any]:
    """What `encode_meta` made; an empty dict for a record without metadata.

    Raises:
        CorruptRecord: it is no JSON object.
    """
    if text is None:
        return {}
    try:
        meta = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        meta = None
    if not isinstance(meta, dict):
        raise CorruptRecord(f"stored metadata is no JSON object: {text!r:.80}")
    return meta


def declared_values(
    name: str, kind: str, metas: Sequence[Mapping[str, Any] | None], first_row: int
) -> list[int | float | str | None]:
    """What `declared_value` makes of a name in each of these."""
    values = [None if meta is None else meta.get(name) for meta in metas]
    if set(map(type, values)) <= {_PLAIN_TYPES.get(kind), NoneType}:
        numbers = [value for value in values if value is not None] if kind == "int64" else []
        if not numbers or (min(numbers) in _INT64 and max(numbers) in _INT64):
            return values
    return [declared_value(name, kind, value, row) for row, value in enumerate(values, first_row)]


def declared_value(name: str, kind: str, value: Any, row: int) -> int | float | str | None:
    """A value as it is stored in the column of declared metadata.

    Args:
        name: of the metadata.
        kind: as declared, see ``catalog_file.METADATA_TYPES``.
        value: as the user gave it; ``None`` is missing.
        row: whose it is, for messages.

    Raises:
        FormatError: it is not of that type.

    Example:
        >>> declared_value("length", "int64", 3, row=0)
        3
        >>> declared_value("length", "int64", 3.5, row=0)
        Traceback (most recent call last):
        splitpipe.errors.FormatError: metadata 'length' of row 0 was declared as int64 and is ...
    """
    if value is None:
        return None
    if isinstance(value, np.generic):
        value = _plain(value) if kind == "json" else value.item()
    if kind == "json":
        return _encoder.encode(value)
    stored = _CASTS[kind](value)
    if stored is None:
        raise FormatError(
            f"metadata {name!r} of row {row} was declared as {kind} and is {value!r:.80} "
            f"({type(value).__name__})"
        )
    return stored


# Types of which values fit as they are.
_PLAIN_TYPES: Final[Mapping[str, type]] = {"int64": int, "float64": float, "str": str, "bool": bool}


def _int64(value: Any) -> int | None:
    return value if type(value) is int and value in _INT64 else None


def _float64(value: Any) -> float | None:
    if type(value) is float:
        return value
    exact = type(value) is int and abs(value) <= 1 << 53
    return float(value) if exact else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _bool(value: Any) -> int | None:
    return int(value) if type(value) is bool else None


_CASTS: Final[Mapping[str, Callable[[Any], int | float | str | None]]] = {
    "int64": _int64,
    "float64": _float64,
    "str": _text,
    "bool": _bool,
}


def bindable(parameters: Sequence[Any]) -> list[int | float | str | bytes | None]:
    """Parameters of a clause as SQLite takes them: numpy's scalars as plain numbers.

    Raises:
        FormatError: they are no sequence, or one of them cannot be compared in SQL.

    Example:
        >>> bindable([np.int64(3), "a", None])
        [3, 'a', None]
    """
    if isinstance(parameters, str | bytes) or not isinstance(parameters, Sequence | np.ndarray):
        raise FormatError(
            f"the parameters of a clause are a list, not {parameters!r:.80}: one value for every ?"
        )
    return [_bindable(value, f"? number {place}") for place, value in enumerate(parameters, 1)]


def _bindable(value: Any, what: str) -> int | float | str | bytes | None:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, int) and int(value) not in _INT64:
        raise FormatError(f"the parameter for {what} is {value}: SQL has integers of 64 bits")
    if value is None or isinstance(value, int | float | bytes):
        return value
    if isinstance(value, str):
        _check_utf8(value, f"the parameter for {what},")
        return value
    advice = (
        "; for one of several values: IN (SELECT value FROM json_each(?)) with json.dumps(values)"
        if isinstance(value, list | tuple | set | frozenset | np.ndarray)
        else ""
    )
    raise FormatError(
        f"the parameter for {what} is a {type(value).__name__}: give a number, a string, bytes or "
        f"None{advice}"
    )
