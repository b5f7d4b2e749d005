"""``splitpipe keys``: keys for the feed of a server, and its tokens.

Responsible for: what the operator makes beside the server, with the folder at hand: the first token
cannot come from a server that asks for one.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated

import typer

from splitpipe.cli.serve import DatabaseUrl, RootFolder, database_of, missing_extra
from splitpipe.cli.sources import AsJson, say_json
from splitpipe.errors import SplitpipeError

__all__ = ["RoleName", "keys", "seconds_of"]

_UNITS = {"m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}


class RoleName(StrEnum):
    """What a token allows."""

    read = "read"
    run = "run"
    admin = "admin"


def keys(
    root: RootFolder,
    token: Annotated[
        str | None, typer.Option("--token", help="Make a token with this name, and print it.")
    ] = None,
    role: Annotated[RoleName, typer.Option(help="read, run or admin.")] = RoleName.admin,
    expires: Annotated[
        str | None, typer.Option(help="For how long: 12h, 30d, 8w; for ever unless said.")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Make new keys where there are some.")
    ] = False,
    database: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Make the keys of a server's feed, and tokens for its clients."""
    try:
        from splitpipe.server.security import Tokens, make_keys
        from splitpipe.server.settings import open_root
        from splitpipe.server.state import open_database
    except ModuleNotFoundError as error:
        raise missing_extra(error) from error
    expires_in_s = None if expires is None else seconds_of(expires)
    where = open_root(root)
    pair = make_keys(where.keys, replace=replace)
    text = None
    if token is not None:
        with open_database(database or database_of(where)) as opened:
            made = Tokens(opened).create(token, role=role.value, expires_in_s=expires_in_s)
            text = made[1]
    if as_json:
        say_json({"root": str(where.path), "public_key": pair.public, "token": text})
        return
    print(f"keys of the feed: {where.keys}, public key {pair.public}")
    if text is not None:
        print(f"token {token!r} with the role {role.value}, shown this one time:\n{text}")


def seconds_of(text: str) -> float:
    """A length of time in seconds.

    Raises:
        SplitpipeError: it is none.

    Example:
        >>> seconds_of("12h")
        43200.0
    """
    found = re.fullmatch(r"([0-9]{1,6})([mhdw])", text)
    if found is None or int(found[1]) == 0:
        raise SplitpipeError(f"--expires {text} is no time. Write 30m, 12h, 30d or 8w")
    return int(found[1]) * _UNITS[found[2]]
