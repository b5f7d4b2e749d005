"""What a record is made of: named, typed columns.

Responsible for: `Field` (the type of one column), `Schema` (the columns of a record, in order) and
`fit` (whether a value fits its column). Fields and schemas are values: immutable, comparable, and
as JSON what a dataset's manifest keeps. How a value becomes bytes is the business of ``codecs``.

Rules:
- any value may be missing, which is ``None``;
- what comes from a file is checked as strictly as what comes from a caller.
"""

from __future__ import annotations

from splitpipe.schema.field import KINDS, Field, FieldLike, audio, image, ndarray, scalar, video
from splitpipe.schema.schema import BARE, Schema, checked_name
from splitpipe.schema.values import fit, fit_array

__all__ = [
    "BARE",
    "KINDS",
    "Field",
    "FieldLike",
    "Schema",
    "audio",
    "checked_name",
    "fit",
    "fit_array",
    "image",
    "ndarray",
    "scalar",
    "video",
]
