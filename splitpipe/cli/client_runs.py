"""``splitpipe client iterations``, ``modules`` and ``tokens``.

Responsible for: what clients read from a server, the code that it has for that, and who may ask.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from splitpipe.cli.client import connected, object_of, say, say_one, say_table
from splitpipe.cli.client_options import (
    DEFAULT_URL,
    ChosenId,
    Iteration,
    JsonText,
    TokenFile,
    Url,
)
from splitpipe.cli.keys import RoleName, seconds_of
from splitpipe.cli.sources import AsJson, say_json

__all__ = ["ITERATION_COMMANDS", "MODULE_COMMANDS", "TOKEN_COMMANDS"]


# -- iterations


def list_iterations(
    url: Url = DEFAULT_URL, token_file: TokenFile = None, as_json: AsJson = False
) -> None:
    """List iterations, the newest first."""
    with connected(url, token_file) as client:
        rows = client.iterations.list()
    shown = rows if as_json else [_with_counts(row) for row in rows]
    columns = ("id", "dataset", "status", "completed", "filtered", "failed", "rate", "created_at")
    say_table(shown, columns, as_json=as_json, nothing="There is no iteration.")


def get_iteration(
    iteration: Iteration,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Tell an iteration and its progress."""
    with connected(url, token_file) as client:
        say_one(client.iterations.get(iteration), as_json=as_json)


def create_iteration(
    spec: JsonText,
    id: ChosenId = None,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Make an iteration, or find the one with this id."""
    with connected(url, token_file) as client:
        made = client.iterations.create(object_of(spec), id=id)
    say(made, as_json=as_json, text=f"iteration {made['id']}: {made['status']}")


def try_iteration(
    spec: JsonText,
    count: Annotated[int, typer.Option(min=1, max=20, help="How many batches.")] = 1,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
) -> None:
    """Make the first batches and print them as JSON; nothing is stored."""
    with connected(url, token_file) as client:
        say_json(client.iterations.try_out(object_of(spec), count=count))


def snippet(
    spec: JsonText, id: ChosenId = None, url: Url = DEFAULT_URL, token_file: TokenFile = None
) -> None:
    """Print the program that iterates so."""
    with connected(url, token_file) as client:
        print(client.iterations.snippet(object_of(spec), id=id), end="")


def start_iteration(
    iteration: Iteration,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Go on with an iteration that was stopped or failed."""
    with connected(url, token_file) as client:
        told = client.iterations.start(iteration)
    say(told, as_json=as_json, text=f"iteration {told['id']}: {told['status']}")


def stop_iteration(
    iteration: Iteration,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """End an iteration until it is started again."""
    with connected(url, token_file) as client:
        told = client.iterations.stop(iteration)
    say(told, as_json=as_json, text=f"iteration {told['id']}: {told['status']}")


def push_back(
    iteration: Iteration,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Take back what clients have and did not acknowledge."""
    with connected(url, token_file) as client:
        told = client.iterations.pushback(iteration)
    say(told, as_json=as_json, text=f"took back {told['batches']} batches")


def delete_iteration(
    iteration: Iteration,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """End an iteration and forget it."""
    with connected(url, token_file) as client:
        client.iterations.delete(iteration)
    say({"deleted": iteration}, as_json=as_json, text=f"forgot iteration {iteration}")


# -- modules


def list_modules(
    url: Url = DEFAULT_URL, token_file: TokenFile = None, as_json: AsJson = False
) -> None:
    """List the operator's modules, and what is wrong with files of theirs."""
    with connected(url, token_file) as client:
        _say_modules(client.modules.list(), as_json=as_json)


def reload_modules(
    url: Url = DEFAULT_URL, token_file: TokenFile = None, as_json: AsJson = False
) -> None:
    """Take what is in the server's folder now."""
    with connected(url, token_file) as client:
        _say_modules(client.modules.reload(), as_json=as_json)


def _say_modules(told: Any, *, as_json: bool) -> None:
    if as_json:
        say_json(told)
        return
    shown = [
        {**one, "parameters": ", ".join(part["name"] for part in one["parameters"])}
        for one in told["modules"]
    ]
    columns = ("name", "kind", "parameters", "file", "doc")
    say_table(shown, columns, as_json=False, nothing="There is no module.")
    for error in told["errors"]:
        print(f"{error['file']}: {error['error']}")


# -- tokens


def list_tokens(
    url: Url = DEFAULT_URL, token_file: TokenFile = None, as_json: AsJson = False
) -> None:
    """List tokens, without what they are."""
    with connected(url, token_file) as client:
        rows = client.tokens.list()
    columns = ("id", "name", "role", "created_at", "expires_at", "last_used_at")
    say_table(rows, columns, as_json=as_json, nothing="There is no token.")


def create_token(
    name: Annotated[str, typer.Argument(help="Whose it is.")],
    role: Annotated[RoleName, typer.Option(help="read, run or admin.")] = RoleName.read,
    expires: Annotated[
        str | None, typer.Option(help="For how long: 12h, 30d, 8w; for ever unless said.")
    ] = None,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Make a token, and print it this one time."""
    expires_in_s = None if expires is None else seconds_of(expires)
    with connected(url, token_file) as client:
        made = client.tokens.create(name, role=role.value, expires_in_s=expires_in_s)
    say(made, as_json=as_json, text=str(made["token"]))


def delete_token(
    token: Annotated[str, typer.Argument(help="Its id.")],
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Make a token worthless."""
    with connected(url, token_file) as client:
        client.tokens.delete(token)
    say({"deleted": token}, as_json=as_json, text=f"token {token} is worth nothing any more")


def _with_counts(row: dict[str, Any]) -> dict[str, Any]:
    progress = row["progress"] or {}
    rate = f"{progress.get('rate') or 0.0:,.0f}/s"
    counts = {name: progress.get(name) for name in ("completed", "filtered", "failed")}
    return {**row, **counts, "id": row["name"] or row["id"], "rate": rate}


ITERATION_COMMANDS: dict[str, Callable[..., None]] = {
    "list": list_iterations,
    "get": get_iteration,
    "create": create_iteration,
    "try": try_iteration,
    "snippet": snippet,
    "start": start_iteration,
    "stop": stop_iteration,
    "pushback": push_back,
    "delete": delete_iteration,
}
MODULE_COMMANDS: dict[str, Callable[..., None]] = {"list": list_modules, "reload": reload_modules}
TOKEN_COMMANDS: dict[str, Callable[..., None]] = {
    "list": list_tokens,
    "create": create_token,
    "delete": delete_token,
}
