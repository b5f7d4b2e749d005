"""``splitpipe serve``: the data service and its page.

Responsible for: the operator's decisions as options, and what is said when the server is ready.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import sys
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from splitpipe.errors import SplitpipeError

if TYPE_CHECKING:
    from splitpipe.server.service import Service
    from splitpipe.server.settings import Root, Settings

__all__ = ["DatabaseUrl", "RootFolder", "database_of", "missing_extra", "serve"]

_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
_BEYOND_LOOPBACK = "8100-8199"


class LogFormat(StrEnum):
    """How lines of the log look."""

    text = "text"
    json = "json"


class LogLevel(StrEnum):
    """The least severe that is written."""

    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"


RootFolder = Annotated[Path, typer.Argument(help="The server's folder; made where there is none.")]
Host = Annotated[str, typer.Option(help="The address to listen to.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")]
FeedPorts = Annotated[
    str | None,
    typer.Option(help="Ports of batches, FIRST-LAST; 0: any. 8100-8199 beyond loopback."),
]
DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        envvar="SPLITPIPE_DATABASE",
        show_envvar=False,
        help="URL of another database than ROOT/state.sqlite.",
    ),
]
ModulesFolder = Annotated[
    Path | None, typer.Option(help="Folder of your own code; ROOT/modules unless said.")
]
AllowRoots = Annotated[
    list[Path] | None, typer.Option(help="A folder in which column sets may lie.")
]
AllowRemote = Annotated[
    list[str] | None, typer.Option(help="Beginning of URLs at which column sets may lie.")
]
StorageOptions = Annotated[
    Path | None, typer.Option(help="A file of mode 0600 with credentials of stores.")
]
AllowedHosts = Annotated[
    list[str] | None, typer.Option(help="A name by which clients call this server.")
]
RequireToken = Annotated[
    bool,
    typer.Option("--require-token", "--token-required", help="Ask for a token on loopback, too."),
]
Durable = Annotated[bool, typer.Option("--durable", help="Wait for the disk before acknowledging.")]
MaxUpload = Annotated[int, typer.Option(min=1, help="Most MiB in one request of an upload.")]
Rate = Annotated[float, typer.Option(min=1.0, help="Requests a second of one token or address.")]
Format = Annotated[LogFormat, typer.Option(help="text, or json.")]
Level = Annotated[LogLevel, typer.Option(help="The least that is written.")]


def serve(
    root: RootFolder,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    feed_ports: FeedPorts = None,
    database: DatabaseUrl = None,
    modules: ModulesFolder = None,
    allow_root: AllowRoots = None,
    allow_remote: AllowRemote = None,
    storage_options: StorageOptions = None,
    allowed_host: AllowedHosts = None,
    require_token: RequireToken = False,
    durable: Durable = False,
    max_upload: MaxUpload = 64,
    rate: Rate = 1000.0,
    log_format: Format = LogFormat.text,
    log_level: Level = LogLevel.info,
) -> None:
    """Serve datasets and iterations to clients, and a page to look at them."""
    try:
        from splitpipe.server.app.logs import set_up_logs
        from splitpipe.server.app.serving import serve as run
        from splitpipe.server.settings import Settings, open_root
    except ModuleNotFoundError as error:
        raise missing_extra(error) from error
    where = open_root(root)
    settings = Settings(
        root=where,
        host=host,
        port=port,
        feed_ports=_ports(feed_ports, host),
        database_url=database or database_of(where),
        modules=(modules or where.modules).resolve(),
        allow_roots=tuple(path.resolve() for path in allow_root or ()),
        allow_remote=tuple(allow_remote or ()),
        storage_options=storage_options,
        allowed_hosts=tuple(allowed_host or ()),
        require_token=require_token,
        durable=durable,
        log_format=log_format.value,
        log_level=log_level.value,
        max_upload_nbytes=max_upload << 20,
        rate_per_s=rate,
    )
    set_up_logs(log_format.value, level=log_level.value)
    _until_asked_to_end(partial(run, settings, ready=_say_ready))


def database_of(root: Root) -> str:
    """The URL of a server's own database."""
    from sqlalchemy.engine import URL

    url = URL.create("sqlite", database=str(root.path / "state.sqlite"))
    return url.render_as_string(hide_password=False)


def missing_extra(error: ModuleNotFoundError) -> SplitpipeError:
    """The error that says which extra a package belongs to."""
    return SplitpipeError(
        f"the server needs {error.name}, which is not installed. Install the extra [server]: "
        "pip install 'splitpipe[server]'"
    )


def _say_ready(url: str, service: Service) -> None:
    from splitpipe.server.security import is_loopback

    settings: Settings = service.settings
    root = settings.root.path
    print(f"serving {url}")
    if settings.require_token or not is_loopback(settings.host):
        if not service.tokens.list():
            print(f"There is no token yet. Make one: splitpipe keys {root} --token NAME")
    else:
        print("Every user of this machine may do everything here; --require-token asks for tokens.")
    print(f"Folder {root}, process {os.getpid()}. Ctrl-C ends it.", flush=True)


def _until_asked_to_end(run: Callable[[], None]) -> None:
    """Serve, and end this process when it was asked to."""
    try:
        run()
    except KeyboardInterrupt:
        _leave(128 + signal.SIGINT)
    except SystemExit as error:
        _leave(error.code if isinstance(error.code, int) else 1)


def _leave(code: int) -> None:
    """End this process, in which everything is closed.

    At its own end the interpreter waits for threads, and runs what libraries in C registered, while
    threads of theirs are still there: a server that was busy a moment ago sometimes stays in that.
    """
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
            stream.flush()
    os._exit(code)


def _ports(text: str | None, host: str) -> tuple[int, int]:
    from splitpipe.server.security import is_loopback

    said = text or ("0" if is_loopback(host) else _BEYOND_LOOPBACK)
    found = _PORTS.fullmatch(said)
    first = int(found[1]) if found else -1
    last = int(found[2]) if found and found[2] else first
    if not 0 <= first <= last <= 65535 or (first == 0 and last != 0):
        raise SplitpipeError(
            f"--feed-ports {said} is no range of ports. Write 8100-8199, one port, or 0 for any"
        )
    return first, last
