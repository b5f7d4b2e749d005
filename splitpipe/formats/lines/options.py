"""What the formats of text have in common in their options.

Responsible for: which files of a folder are read, which columns a record has, and fitting a value
to the type of its column.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy.typing as npt

from splitpipe.errors import FormatError
from splitpipe.formats.base import Source
from splitpipe.schema import FieldLike, Schema, fit_array

__all__ = ["check_broken", "chosen_files", "fitted", "names_of", "schema_of"]

# What a column of a text format may be.
KINDS = ("str", "json", "scalar", "ndarray")


def names_of(options: type[Any]) -> tuple[str, ...]:
    """The names of a format's options, from the dataclass that holds them."""
    return tuple(field.name for field in fields(options))


def schema_of(
    schema: Schema | Mapping[str, FieldLike] | None,
    columns: Sequence[str] | None,
    default: FieldLike,
) -> Schema | None:
    """The schema that two options mean together; ``None`` if neither was said.

    Args:
        schema: names and types of columns.
        columns: names alone: of the schema's columns, or of any, of type ``default``.
        default: the type of a column without one.

    Raises:
        FormatError: the format has no such columns.
    """
    if schema is None:
        return None if columns is None else Schema(dict.fromkeys(columns, default))
    parsed = Schema.parse(schema)
    if parsed.bare:
        raise FormatError(
            "schema= needs names here: {'text': 'str', 'n': 'int64'}; without it a record is the "
            "value as it stands"
        )
    for name, field in parsed.items():
        if field.kind not in KINDS:
            raise FormatError(
                f"column {name!r}: {field.kind} cannot be read from text; kinds here: "
                f"{', '.join(KINDS)}"
            )
    return parsed if columns is None else parsed.select(columns)


def check_broken(broken: str) -> None:
    """Raise ``FormatError`` unless this says what to do with broken records."""
    if broken not in ("raise", "skip"):
        raise FormatError(f"broken must be 'raise' or 'skip', not {broken!r}")


def chosen_files(
    source: Source, default: Sequence[str], chosen: Sequence[str] | None, format: str
) -> list[str]:
    """The files of a source that a format reads.

    Args:
        source: a folder, or files, which are all read.
        default: suffixes of the format.
        chosen: suffixes that the user named instead; empty for every file.
        format: the format's name, for the message.

    Raises:
        FormatError: there is none.
    """
    if isinstance(chosen, str):
        chosen = (chosen,)
    suffixes = tuple(default if chosen is None else (suffix.lower() for suffix in chosen))
    found = source.files(*suffixes)
    if not found:
        raise FormatError(
            f"{source.root} has no file for format {format!r} (suffixes {', '.join(suffixes)}): "
            "name others with suffixes=, or give a list of files"
        )
    return found


def _single(array: npt.NDArray[Any]) -> Any:
    """A scalar as Python's number; dates stay numpy's, which have a unit."""
    return array[()] if array.dtype.kind in "mM" else array.item()


def fitted(schema: Schema, record: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a schema out of a record with more of them, each of its type.

    Raises:
        ValueError: a value does not fit; the message names the field.
    """
    values: dict[str, Any] = {}
    for name, field in schema.items():
        value = record.get(name)
        if value is None:
            continue
        try:
            if field.kind == "str":
                if not isinstance(value, str):
                    raise FormatError(f"a str is needed, not a {type(value).__name__}")
            elif field.kind != "json":
                array = fit_array(field, value)
                value = array if field.kind == "ndarray" else _single(array)
        except FormatError as error:
            raise FormatError(f"field {name!r}: {error}") from error
        values[name] = value
    return values
