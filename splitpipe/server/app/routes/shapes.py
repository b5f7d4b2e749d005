"""What routes share: names in paths, JSON that only its room understands.

Responsible for: types of parameters and answers that several files of routes use.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from fastapi import Path, Query
from pydantic import BaseModel, ConfigDict

__all__ = [
    "BINARY",
    "BINARY_SCHEMA",
    "MOST",
    "Body",
    "ColumnSetName",
    "DatasetName",
    "Json",
    "Limit",
    "Offset",
    "Row",
]

Json: TypeAlias = dict[str, Any]
"""An object whose members its own room describes; new members may come."""

MOST = 2**53 - 1
"""The largest whole number that every reader of JSON keeps exactly."""

BINARY_SCHEMA: Json = {"schema": {"type": "string", "format": "binary"}}
BINARY: Json = {"application/octet-stream": BINARY_SCHEMA}

DatasetName: TypeAlias = Annotated[
    str, Path(min_length=1, max_length=200, description="Name or id of the dataset.")
]
ColumnSetName: TypeAlias = Annotated[
    str, Path(min_length=1, max_length=200, description="Name of the column set.")
]
Row: TypeAlias = Annotated[int, Path(ge=0, le=MOST, description="Number of the record, from 0.")]
Offset: TypeAlias = Annotated[int, Query(ge=0, le=MOST, description="The first, from 0.")]
Limit: TypeAlias = Annotated[int, Query(ge=1, le=1000, description="How many at most.")]


class Body(BaseModel):
    """The body of a request: a field that nobody knows is refused."""

    model_config = ConfigDict(extra="forbid", strict=True)
