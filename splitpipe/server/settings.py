"""What the operator of a server decided, and the folder in which it lives.

Responsible for: `Settings`, and the layout of ROOT: made once, marked, recognised again.

    ROOT/server.json     what this folder is, its version and its id
         state.sqlite    the database, unless another one is named
         data/           column sets that clients uploaded
         modules/        the operator's own code, unless another folder is named
         keys/           secret keys, readable for the owner alone
         run/            sockets and copies of modules of the server that runs now
         logs/           what engines and tasks said before they ended badly

Rules:
- a folder that holds other things is never made a ROOT;
- one server at a time: the lock goes with the process, however it ends.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from splitpipe.errors import FormatError, LockedError, StorageError, UnsupportedVersion

__all__ = ["Root", "Settings", "open_root"]

ROOT_VERSION = 1
MARKER = "server.json"
_PRIVATE = ("keys", "run")
_FOLDERS = (*_PRIVATE, "data", "modules", "logs")


@dataclass(frozen=True)
class Root:
    """The folder of a server.

    Attributes:
        path: absolute, without symbolic links.
        identity: sixteen hexadecimal digits, the same for the life of the folder.
    """

    path: Path
    identity: str

    @property
    def data(self) -> Path:
        """Where uploaded column sets lie."""
        return self.path / "data"

    @property
    def modules(self) -> Path:
        """Where the operator places code, unless another folder is named."""
        return self.path / "modules"

    @property
    def keys(self) -> Path:
        """Where secret keys lie."""
        return self.path / "keys"

    @property
    def run(self) -> Path:
        """Sockets and copies of modules of the server that runs now."""
        return self.path / "run"

    @property
    def logs(self) -> Path:
        """What engines and tasks said."""
        return self.path / "logs"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder as the one server in it.

        Raises:
            LockedError: another process serves it.
        """
        path = self.path / "run" / "lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                owner = os.pread(descriptor, 64, 0).decode("ascii", "replace").strip()
                raise LockedError(
                    f"{self.path} is served by another process (pid {owner or 'unknown'}). End "
                    "that one first, or serve another folder"
                ) from None
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            yield
        finally:
            os.close(descriptor)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the operator decided when the server was started.

    Attributes:
        root: the server's folder.
        host: the address that is listened to.
        port: 0 for any free one.
        feed_ports: first and last port of the engines' sockets; (0, 0) for any free one.
        database_url: of SQLAlchemy; may hold a password, and is no part of the ``repr``.
        modules: the folder of the operator's code.
        allow_roots: folders beside ROOT/data in which column sets may lie.
        allow_remote: beginnings of URLs at which column sets may lie.
        storage_options: a file with credentials of stores, or None.
        allowed_hosts: names beside loopback's by which clients may call the server.
        require_token: ask for a token on loopback, too.
        durable: wait for the disk before anything is acknowledged.
        log_format: one JSON object a line, or text.
        log_level: the least severe that is written.
        max_upload_nbytes: the largest body of one upload.
        rate_per_s: how many requests one token, or one address without a token, may make.
    """

    root: Root
    host: str = "127.0.0.1"
    port: int = 8000
    feed_ports: tuple[int, int] = (0, 0)
    database_url: str = field(default="", repr=False)
    modules: Path = Path()
    allow_roots: tuple[Path, ...] = ()
    allow_remote: tuple[str, ...] = ()
    storage_options: Path | None = None
    allowed_hosts: tuple[str, ...] = ()
    require_token: bool = False
    durable: bool = False
    log_format: Literal["text", "json"] = "text"
    log_level: str = "info"
    max_upload_nbytes: int = 64 << 20
    rate_per_s: float = 1000.0


def open_root(path: str | os.PathLike[str]) -> Root:
    """Open the folder of a server; make it where there is none, or an empty one.

    Raises:
        FormatError: the folder holds other things, or its marker is no marker of ours.
        UnsupportedVersion: a newer splitpipe made it.
        StorageError: it cannot be read or written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     open_root(folder) == open_root(folder)
        True
    """
    where = Path(path)
    try:
        where.mkdir(parents=True, exist_ok=True)
        where = where.resolve()
        marker = where / MARKER
        if not marker.exists():
            _mark(where)
        root = Root(where, _identity(marker))
        for name in _FOLDERS:
            folder = where / name
            folder.mkdir(exist_ok=True, mode=0o700 if name in _PRIVATE else 0o755)
            if name in _PRIVATE:
                folder.chmod(0o700)
    except (FormatError, StorageError):
        raise
    except OSError as error:
        raise StorageError(
            f"the folder of the server, {where}, cannot be used: {error.strerror or error}. Name a "
            "folder that you may read and write"
        ) from error
    return root


def _mark(where: Path) -> None:
    # Modules may be placed before a server was ever started, and file systems have their own.
    known = {MARKER, "modules", "lost+found"}
    others = sorted(
        entry.name
        for entry in where.iterdir()
        # What a server left that was killed while it did this is none of them.
        if entry.name not in known and not entry.name.startswith(f".{MARKER}.")
    )
    if others:
        raise FormatError(
            f"{where} is no folder of a server, and holds other things ({others[0]!r}). Name an "
            "empty folder, or one that is not there yet"
        )
    text = json.dumps(
        {"format": "splitpipe server", "version": ROOT_VERSION, "id": secrets.token_hex(8)}
    )
    half = where / f".{MARKER}.{os.getpid()}"
    with half.open("w", encoding="utf-8") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    half.replace(where / MARKER)


def _identity(marker: Path) -> str:
    try:
        said: Any = json.loads(marker.read_text(encoding="utf-8"))
        kind, version, identity = said["format"], said["version"], said["id"]
    except (ValueError, KeyError, TypeError):
        kind, version, identity = None, None, None
    if kind != "splitpipe server" or type(version) is not int or type(identity) is not str:
        raise FormatError(
            f"{marker} is not the marker of a server's folder. Name another folder, or move it away"
        )
    if version > ROOT_VERSION:
        raise UnsupportedVersion(
            f"{marker} says version {version}, and this splitpipe knows only {ROOT_VERSION}. Start "
            "the newer splitpipe that made the folder, or name another one"
        )
    return identity
