"""Arguments and options of ``splitpipe client``, each in one place.

Responsible for: the types by which commands declare what they take.

Rules:
- a token is in no argument, which others of the machine can read: it comes from the environment or
  from a file.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "DEFAULT_URL",
    "ChosenId",
    "Columns",
    "Dataset",
    "Format",
    "Formats",
    "Iteration",
    "JoinRule",
    "JsonText",
    "Modules",
    "Name",
    "OnError",
    "RemoveData",
    "Task",
    "TokenFile",
    "Types",
    "Url",
    "Wait",
]

DEFAULT_URL = "http://127.0.0.1:8000"


class Format(StrEnum):
    """How a column set is stored."""

    bins = "bins"
    csv = "csv"
    jsonl = "jsonl"
    parquet = "parquet"


class JoinRule(StrEnum):
    """What becomes of records that a column set does not have."""

    left = "left"
    inner = "inner"
    strict = "strict"


class OnError(StrEnum):
    """What becomes of a batch that fails."""

    fail = "raise"
    skip = "skip"


# -- whom they ask

Url = Annotated[
    str,
    typer.Option(
        "--url", envvar="SPLITPIPE_URL", show_envvar=False, help="The server; SPLITPIPE_URL."
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option("--token-file", help="A file with the token; SPLITPIPE_TOKEN unless said."),
]

# -- of what they tell

Dataset = Annotated[str, typer.Argument(help="Name or id of the dataset.")]
Name = Annotated[str, typer.Argument(help="Name of the column set.")]
Iteration = Annotated[str, typer.Argument(help="Its id, or the one that was chosen for it.")]
Task = Annotated[str, typer.Argument(help="Its id.")]
JsonText = Annotated[str, typer.Argument(metavar="SPEC", help="JSON, or @FILE with some.")]

# -- how

Wait = Annotated[bool, typer.Option("--wait", help="Wait until the task is over.")]
RemoveData = Annotated[
    bool, typer.Option("--remove-data", help="Also remove what was uploaded into it.")
]
Formats = Annotated[Format, typer.Option(help="bins, csv, jsonl, parquet.")]
Types = Annotated[
    str | None,
    typer.Option(help='Columns and types as JSON, {"label": "int64"}; found out unless said.'),
]
Columns = Annotated[list[str] | None, typer.Option("--column", help="One of the columns.")]
Modules = Annotated[list[str] | None, typer.Option(help="NAME or NAME={...}; several in order.")]
ChosenId = Annotated[str | None, typer.Option("--id", help="An id of your own choice.")]
