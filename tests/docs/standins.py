"""Real servers in the place of those that pages make up: for the preludes of fragments."""

from __future__ import annotations

import atexit
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.server.serving import Served, serving
from tests.servers import FileServer, S3Server

_MADE_UP = "http://127.0.0.1:8000"

stack = ExitStack()
atexit.register(stack.close)


def a_store(*buckets: str) -> S3Server:
    """An S3 server with these buckets, which ``s3://`` leads to from now on."""
    server = stack.enter_context(S3Server())
    for name in buckets:
        server.create_bucket(name)
    os.environ["FSSPEC_S3_ENDPOINT_URL"] = server.url
    os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"] = server.key, server.secret
    os.environ["SPLITPIPE_CACHE"] = os.path.abspath("cache")
    return server


def a_folder(server: S3Server, folder: str, key: str) -> None:
    """Put a folder of this machine into a store."""
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file() and path.name != "writer.lock":
            server.put(f"{key}/{path.relative_to(folder)}", path.read_bytes())


def a_file_server(folder: str) -> str:
    """Serve a folder over HTTP; its url."""
    return stack.enter_context(FileServer(Path(folder))).url


def a_service(modules: Sequence[str], *options: str) -> tuple[Served, Callable[[str], str]]:
    """A data service with these modules; and what puts its address in the place of a page's."""
    root = Path(tempfile.mkdtemp(dir=".")).resolve() / "served"
    (root.parent / "modules").mkdir()
    for number, code in enumerate(modules):
        (root.parent / "modules" / f"given{number}.py").write_text(code, encoding="utf-8")
    told = ("--modules", str(root.parent / "modules"), *options)
    served = stack.enter_context(serving(root, *told))
    return served, lambda code: code.replace(_MADE_UP, served.url)
