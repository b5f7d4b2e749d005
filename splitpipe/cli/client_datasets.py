"""``splitpipe client datasets``, ``column-sets`` and ``tasks``.

Responsible for: what there is on a server, what is in it, and its work in the background.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from splitpipe.cli.client import connected, module_of, object_of, say, say_one, say_table
from splitpipe.cli.client_options import (
    DEFAULT_URL,
    Columns,
    Dataset,
    Format,
    Formats,
    JoinRule,
    Modules,
    Name,
    OnError,
    RemoveData,
    Task,
    TokenFile,
    Types,
    Url,
    Wait,
)
from splitpipe.cli.sources import AsJson, say_json
from splitpipe.errors import FormatError, StorageError

__all__ = ["COLUMN_SET_COMMANDS", "DATASET_COMMANDS", "TASK_COMMANDS"]


# -- datasets


def list_datasets(
    url: Url = DEFAULT_URL, token_file: TokenFile = None, as_json: AsJson = False
) -> None:
    """List all datasets."""
    with connected(url, token_file) as client:
        rows = client.datasets.list()
    shown = rows if as_json else [_with_names(row) for row in rows]
    columns = ("name", "uid_column", "join", "column_sets", "created_at")
    say_table(shown, columns, as_json=as_json, nothing="There is no dataset.")


def get_dataset(
    dataset: Dataset, url: Url = DEFAULT_URL, token_file: TokenFile = None, as_json: AsJson = False
) -> None:
    """Tell a dataset: column sets, columns, records."""
    with connected(url, token_file) as client:
        say_one(client.datasets.get(dataset), as_json=as_json)


def create_dataset(
    name: Annotated[str, typer.Argument(help="Its name.")],
    uid_column: Annotated[
        str | None, typer.Option(help="Join column sets by it; by row unless said.")
    ] = None,
    join: Annotated[JoinRule, typer.Option(help="left, inner or strict.")] = JoinRule.left,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Make a dataset without column sets."""
    with connected(url, token_file) as client:
        made = client.datasets.create(name, uid_column=uid_column, join=join.value)
    say(made, as_json=as_json, text=f"dataset {made['name']}, id {made['id']}")


def delete_dataset(
    dataset: Dataset,
    remove_data: RemoveData = False,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Forget a dataset. Files stay where they are."""
    with connected(url, token_file) as client:
        client.datasets.delete(dataset, remove_data=remove_data)
    say({"deleted": dataset}, as_json=as_json, text=f"forgot dataset {dataset}")


def preview(
    dataset: Dataset,
    offset: Annotated[int, typer.Option(min=0, help="The first, from 0.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 10,
    column: Columns = None,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
) -> None:
    """Show records, one JSON object a line; long values are cut."""
    with connected(url, token_file) as client:
        shown = client.datasets.preview(dataset, offset=offset, limit=limit, columns=column)
    for row in shown["rows"]:
        say_json(row)


def media(
    dataset: Dataset,
    row: Annotated[int, typer.Argument(min=0, help="Number of the record, from 0.")],
    column: Annotated[str, typer.Argument(help="Name of the column.")],
    target: Annotated[Path, typer.Argument(help="The file to write; - for stdout.")],
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
) -> None:
    """Write one value, an image, audio, video or bytes, into a file."""
    with connected(url, token_file) as client:
        content = client.datasets.media(dataset, row, column)
    if str(target) == "-":
        sys.stdout.buffer.write(content)
        return
    try:
        target.write_bytes(content)
    except OSError as error:
        raise StorageError(f"{target} cannot be written: {error.strerror or error}") from error


def statistics(
    dataset: Dataset,
    count: Annotated[bool, typer.Option("--count", help="Count anew, and wait.")] = False,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
) -> None:
    """Print the figures of every column as JSON."""
    with connected(url, token_file) as client:
        if count:
            client.tasks.wait(client.datasets.start_statistics(dataset))
        found: Any = client.datasets.statistics(dataset)
    if found is None:
        raise FormatError(f"nobody has counted dataset {dataset!r} yet: say --count")
    say_json(found)


def preprocess(
    dataset: Dataset,
    column_set: Annotated[str, typer.Argument(help="Name of the new column set.")],
    preprocessor: Modules = None,
    filter: Modules = None,
    column: Columns = None,
    output: Annotated[
        list[str] | None,
        typer.Option(help="One of the columns to write; all new ones if none."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Records at a time.")] = 32,
    workers: Annotated[int, typer.Option("-w", "--workers", min=0, help="Processes.")] = 0,
    on_error: Annotated[
        OnError, typer.Option(help="A batch that fails: raise (fail) or skip.")
    ] = OnError.fail,
    wait: Wait = False,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Begin to make a new column set of a dataset on the server."""
    with connected(url, token_file) as client:
        task = client.datasets.preprocess(
            dataset,
            column_set,
            preprocessors=[module_of(one) for one in preprocessor or ()],
            filters=[module_of(one) for one in filter or ()],
            columns=column,
            outputs=output,
            batch_size=batch_size,
            workers=workers,
            on_error=on_error.value,
        )
        _say_task(client, task, wait=wait, as_json=as_json)


def check(
    dataset: Dataset,
    wait: Wait = False,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Begin to read every value; the task says what cannot be read."""
    with connected(url, token_file) as client:
        _say_task(client, client.datasets.check(dataset), wait=wait, as_json=as_json)


# -- column sets


def list_column_sets(
    dataset: Dataset, url: Url = DEFAULT_URL, token_file: TokenFile = None, as_json: AsJson = False
) -> None:
    """List the column sets of a dataset."""
    with connected(url, token_file) as client:
        rows = client.datasets.column_sets.list(dataset)
    columns = ("name", "status", "format", "rows", "location", "error")
    say_table(rows, columns, as_json=as_json, nothing="There is no column set.")


def get_column_set(
    dataset: Dataset,
    name: Name,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Tell a column set: where it lies, what it has."""
    with connected(url, token_file) as client:
        say_one(client.datasets.column_sets.get(dataset, name), as_json=as_json)


def add_column_set(
    dataset: Dataset,
    name: Name,
    location: Annotated[str, typer.Argument(help="Path or URL, as the server sees it.")],
    format: Formats = Format.bins,
    types: Types = None,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Add columns that lie somewhere."""
    with connected(url, token_file) as client:
        made = client.datasets.column_sets.add(
            dataset,
            name,
            location,
            format=format.value,
            columns=object_of(types) if types else None,
        )
    say(made, as_json=as_json, text=f"column set {name} with {made['rows']} rows")


def upload(
    dataset: Dataset,
    name: Name,
    source: Annotated[str, typer.Argument(help="A dataset of this machine, of any format.")],
    format: Formats = Format.bins,
    column: Columns = None,
    types: Types = None,
    reopen: Annotated[
        bool, typer.Option("--reopen", help="Add to a column set that was finished.")
    ] = False,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Send the records of a dataset of this machine as a new column set."""
    from splitpipe.dataset import open_dataset

    declared = object_of(types) if types else None
    with connected(url, token_file) as client, open_dataset(source) as opened:
        chosen = opened.select(column) if column else opened
        with client.writer(
            dataset, name, format=format.value, columns=declared, reopen=reopen
        ) as writer:
            for record in chosen:
                writer.write(dict(record))
        made = client.datasets.column_sets.get(dataset, name)
    say(made, as_json=as_json, text=f"column set {name} with {made['rows']} rows")


def remove_column_set(
    dataset: Dataset,
    name: Name,
    remove_data: RemoveData = False,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Forget a column set. Files stay where they are."""
    with connected(url, token_file) as client:
        client.datasets.column_sets.remove(dataset, name, remove_data=remove_data)
    say({"removed": name}, as_json=as_json, text=f"forgot column set {name}")


def sync(
    dataset: Dataset,
    name: Name,
    wait: Wait = False,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Look at a location again: new, changed and removed files."""
    with connected(url, token_file) as client:
        task = client.datasets.column_sets.sync(dataset, name)
        _say_task(client, task, wait=wait, as_json=as_json)


# -- tasks


def list_tasks(
    url: Url = DEFAULT_URL, token_file: TokenFile = None, as_json: AsJson = False
) -> None:
    """List tasks, the newest first."""
    with connected(url, token_file) as client:
        rows = client.tasks.list()
    columns = ("id", "kind", "status", "progress", "error", "created_at")
    say_table(rows, columns, as_json=as_json, nothing="There is no task.")


def get_task(
    task: Task,
    wait: Wait = False,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Tell a task: what it does, how far it is, what came of it."""
    with connected(url, token_file) as client:
        say_one(client.tasks.wait(task) if wait else client.tasks.get(task), as_json=as_json)


def abort_task(
    task: Task,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """End a task before it is done."""
    with connected(url, token_file) as client:
        told = client.tasks.abort(task)
    say(told, as_json=as_json, text=f"task {task}: {told['status']}")


def _say_task(client: Any, task: dict[str, Any], *, wait: bool, as_json: bool) -> None:
    told = client.tasks.wait(task) if wait else task
    say(told, as_json=as_json, text=f"task {told['id']} ({told['kind']}): {told['status']}")


def _with_names(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "column_sets": ", ".join(one["name"] for one in row["column_sets"])}


DATASET_COMMANDS: dict[str, Callable[..., None]] = {
    "list": list_datasets,
    "get": get_dataset,
    "create": create_dataset,
    "delete": delete_dataset,
    "preview": preview,
    "media": media,
    "statistics": statistics,
    "preprocess": preprocess,
    "check": check,
}
COLUMN_SET_COMMANDS: dict[str, Callable[..., None]] = {
    "list": list_column_sets,
    "get": get_column_set,
    "add": add_column_set,
    "upload": upload,
    "remove": remove_column_set,
    "sync": sync,
}
TASK_COMMANDS: dict[str, Callable[..., None]] = {
    "list": list_tasks,
    "get": get_task,
    "abort": abort_task,
}
