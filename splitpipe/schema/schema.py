"""The columns of a record, in order.

Responsible for: `Schema` as a value: names, order, whether records are dicts or plain values, and
its JSON form, which a dataset's manifest keeps.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from splitpipe.errors import FormatError
from splitpipe.schema.field import Field, FieldLike
from splitpipe.schema.values import fit

__all__ = ["BARE", "Schema", "checked_name"]

# The one column of a dataset whose records are plain values.
BARE: Final = "data"

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


class Schema(Mapping[str, Field]):
    """The columns of a record: an immutable, ordered mapping from name to `Field`.

    Args:
        fields: name -> anything that `Field.parse` takes. A single such thing, not in a
            mapping, makes a schema whose records are plain values.

    Attributes:
        bare: whether a record is the value itself, not a dict.

    Raises:
        FormatError: a name is not an identifier of at most 128 ASCII characters, a type is
            unknown, or there is no column.

    Example:
        >>> import splitpipe.schema as sp
        >>> schema = sp.Schema({"text": "str", "ids": sp.ndarray("uint16", (4,))})
        >>> list(schema), schema["ids"].nbytes, schema.bare
        (['text', 'ids'], 8, False)
        >>> sp.Schema.from_json(schema.to_json()) == schema
        True
        >>> sp.Schema("bytes")
        Schema(Field('bytes'))
    """

    __slots__ = ("_fields", "bare")

    _fields: dict[str, Field]
    bare: bool

    def __init__(self, fields: Mapping[str, FieldLike] | FieldLike) -> None:
        bare = not isinstance(fields, Mapping)
        named = fields if isinstance(fields, Mapping) else {BARE: fields}
        parsed: dict[str, Field] = {}
        for name, field in named.items():
            try:
                parsed[checked_name(name)] = Field.parse(field)
            except FormatError as error:
                raise FormatError(f"column {name!r}: {error}") from error
        if not parsed:
            raise FormatError("a schema needs at least one column")
        object.__setattr__(self, "_fields", parsed)
        object.__setattr__(self, "bare", bare)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("a schema cannot be changed: make another one")

    @classmethod
    def parse(cls, given: Schema | Mapping[str, FieldLike] | FieldLike) -> Schema:
        """A schema from any way of saying it."""
        return given if isinstance(given, Schema) else cls(given)

    @classmethod
    def infer(cls, record: Any) -> Schema:
        """The schema that a first record suggests.

        A dict has a column for every item, anything else is a plain value. Arrays suggest their
        exact dtype and shape, lists and dicts inside a record ``json``.

        Raises:
            FormatError: something in it suggests no type; the message names it.

        Example:
            >>> Schema.infer({"text": "a", "score": 0.5})
            Schema({'text': Field('str'), 'score': Field('float64')})
        """
        if not isinstance(record, Mapping):
            return cls(Field.of(record))
        fields: dict[str, FieldLike] = {}
        for name, value in record.items():
            try:
                fields[checked_name(name)] = Field.of(value)
            except FormatError as error:
                raise FormatError(f"field {name!r}: {error}") from error
        return cls(fields)

    def __getitem__(self, name: str) -> Field:
        return self._fields[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Schema):
            return NotImplemented
        return self.bare == other.bare and list(self.items()) == list(other.items())

    def __hash__(self) -> int:
        return hash((self.bare, tuple(self._fields.items())))

    def __reduce__(self) -> Any:
        return Schema.from_json, (self.to_json(),)

    def __repr__(self) -> str:
        return f"Schema({self._fields[BARE] if self.bare else self._fields!r})"

    def select(self, names: Iterable[str]) -> Schema:
        """The schema of some columns, in the order of ``names``; its records are dicts.

        Raises:
            FormatError: there is no such column, or one comes twice.
        """
        return Schema({name: self._fields[name] for name in self.checked_names(names)})

    def checked_names(self, names: Iterable[str]) -> tuple[str, ...]:
        """Names of columns, each looked for.

        Raises:
            FormatError: one is not here, or comes twice; the message names those that are.
        """
        found = (names,) if isinstance(names, str) else tuple(names)
        for name in found:
            if name not in self._fields:
                raise FormatError(f"there is no column {name!r}; columns: {self._listed()}")
        if len(set(found)) != len(found):
            raise FormatError(f"a column is named twice in {found!r}")
        return found

    def with_field(self, name: str, field: FieldLike) -> Schema:
        """The schema with one more column.

        Raises:
            FormatError: records are plain values, or the name is taken.
        """
        if self.bare:
            raise FormatError("records are plain values here: they have no further columns")
        if name in self._fields:
            raise FormatError(f"there is a column {name!r} already")
        return Schema({**self._fields, name: field})

    def check(self, record: Any) -> None:
        """Raise ``FormatError`` unless a record fits; the message names the field.

        Example:
            >>> Schema({"n": "uint8"}).check({"n": 256})
            Traceback (most recent call last):
            splitpipe.errors.FormatError: field 'n': 256 is out of the range of uint8
        """
        for name, value in self.values_of(record).items():
            if value is not None:
                try:
                    fit(self._fields[name], value)
                except FormatError as error:
                    raise FormatError(f"field {name!r}: {error}") from error

    def values_of(self, record: Any) -> Mapping[str, Any]:
        """A record's values by column name; what is absent is missing.

        Raises:
            FormatError: it is not a dict where one is needed, or has a field that is unknown.
        """
        if self.bare:
            return {BARE: record}
        if not isinstance(record, Mapping):
            raise FormatError(
                f"a record must be a dict of {self._listed()}, not a {type(record).__name__}"
            )
        if not record.keys() <= self._fields.keys():
            unknown = next(name for name in record if name not in self._fields)
            raise FormatError(
                f"field {unknown!r}: there is no such column; columns: {self._listed()}"
            )
        return record

    def _listed(self) -> str:
        return ", ".join(map(repr, self._fields))

    def to_json(self) -> dict[str, Any]:
        """The schema as JSON."""
        return {
            "bare": self.bare,
            "columns": [{"name": name, **field.to_json()} for name, field in self.items()],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Schema:
        """The schema of a JSON form.

        Raises:
            FormatError: it is none.
        """
        try:
            columns = list(document["columns"])
            fields = {str(entry["name"]): Field.from_json(entry) for entry in columns}
            bare = document.get("bare", False)
        except (KeyError, TypeError, AttributeError) as error:
            raise FormatError(f"this is not a schema: {error!r}") from error
        if len(fields) != len(columns) or (bare and list(fields) != [BARE]):
            raise FormatError("this is not a schema: a column is there twice, or misnamed")
        return cls(fields[BARE] if bare else fields)


def checked_name(name: Any) -> str:
    """A column's name, or ``FormatError``."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise FormatError(
            f"{name!r} cannot name a column: use letters, digits and underscores (at most 128, "
            "not beginning with a digit)"
        )
    return name
