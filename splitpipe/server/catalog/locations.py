"""Where column sets may lie.

Responsible for: `Locations`, the operator's rules; `Place`, a location that was looked at and may
be read; and the options of stores, which are read from a file of the operator's when they are
needed.

Rules:
- a path is relative to the folder of uploaded data, or absolute; after all links are followed it
  lies in that folder or in one that the operator allows. So does every file below it;
- a url is read only where the operator allows what it begins with. It holds no user, no password
  and no query, since it is stored and shown;
- credentials are in no location, no snapshot and no database: they come from the environment or
  from a file that nobody but its owner may read.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from splitpipe.errors import FormatError, NotAllowed, StorageError
from splitpipe.raw.fetching import options_by_origin
from splitpipe.raw.locations import Location, is_url, placed, told
from splitpipe.storage import files
from splitpipe.stores import checked_key

__all__ = ["Locations", "Place"]

# Those that read files of this machine are none of them.
_SCHEMES: Final = ("http", "https", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "hf", "sftp")
_WILD: Final = re.compile(r"[*?\[]")
_LARGEST_OPTIONS: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Place:
    """A location that may be read.

    Attributes:
        path: an absolute path without links, or a url.
        remote: whether it is a url.
        pattern: whether it stands for the files that it matches.
    """

    path: str
    remote: bool
    pattern: bool

    @property
    def location(self) -> Location:
        """The store and the key of a url."""
        return placed(self.path)


@dataclass(frozen=True, slots=True)
class Locations:
    """What the operator lets column sets be read from.

    Attributes:
        data: the folder of uploaded data; relative locations are relative to it.
        allow_roots: further folders.
        allow_remote: what urls may begin with, such as ``s3://bucket/train``.
        storage_options: a file of JSON with options of stores by what their urls begin with; only
            its owner may be able to read it.
        cache: the folder for copies and blocks of remote files.

    Example:
        >>> import tempfile
        >>> rules = Locations(tempfile.mkdtemp(), allow_remote=("s3://bucket/train",))
        >>> rules.place("s3://bucket/train/a.csv").remote
        True
        >>> rules.place("/etc")
        Traceback (most recent call last):
        ...
        splitpipe.errors.NotAllowed: '/etc' lies outside of the folders that this server may read...
    """

    data: str
    allow_roots: tuple[str, ...] = ()
    allow_remote: tuple[str, ...] = ()
    storage_options: str | None = None
    cache: str | None = None

    # -- rules -----------------------------------------------------------------------------

    def place(self, location: str) -> Place:
        """The place that a location names.

        Raises:
            NotAllowed: the operator does not allow it.
            FormatError: it names nothing, or has a password in it.
        """
        if not location or not location.isprintable():
            raise FormatError(f"{location!r:.200} is no location: a path or a url is needed")
        if is_url(location) or "::" in location:
            return self._remote(location)
        if ".." in location.split("/"):
            raise NotAllowed(f"{location!r:.200} climbs out of its folder: write it without '..'")
        path = os.path.normpath(os.path.join(self.data, location))
        return Place(self.inside(path), remote=False, pattern=_WILD.search(location) is not None)

    def inside(self, path: str) -> str:
        """A path of this machine without links, if it lies where it may.

        Raises:
            NotAllowed: it does not, or a link on the way leads elsewhere.
        """
        real = os.path.realpath(path)
        for root in (self.data, *self.allow_roots):
            folder = os.path.realpath(root)
            if real == folder or real.startswith(os.path.join(folder, "")):
                return real
        where = "" if real == path else ", where its links lead,"
        raise NotAllowed(
            f"{path!r:.200}{where} lies outside of the folders that this server may read: its "
            "operator allows more with --allow-root DIR"
        )

    def _remote(self, location: str) -> Place:
        scheme = location.partition("://")[0].lower()
        if scheme not in _SCHEMES or "::" in location:
            raise NotAllowed(
                f"{told(location)!r:.200} is no url that a server reads; it may begin with "
                f"{', '.join(_SCHEMES)}"
            )
        found = placed(location)
        if "?" in found.key or "#" in location or "?" in location:
            raise FormatError(
                f"{told(location)!r:.200} has a query in it, which would be stored and shown: give "
                "credentials to the server (--storage-options FILE)"
            )
        _check_key(found.key, location)
        if not any(_covers(prefix, found) for prefix in self.allow_remote):
            raise NotAllowed(
                f"this server does not read {told(location)!r:.200}: its operator allows urls with "
                "--allow-remote PREFIX"
            )
        return Place(found.root + found.key, remote=True, pattern="*" in found.key)

    # -- stores ----------------------------------------------------------------------------

    def options_for(self, url: str) -> Mapping[str, Any] | None:
        """The options of the store of a url; ``None``: what the environment says.

        Raises:
            StorageError: the file of options cannot be read, or others may read it.
            FormatError: it is none.
        """
        if self.storage_options is None:
            return None
        root = placed(url).root
        given = options_by_origin(_read_options(self.storage_options), ())
        return given.get(root, given.get(root.partition("://")[0] + "://"))

    # -- travelling ------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """As JSON; it holds no credentials."""
        return {
            "data": self.data,
            "allow_roots": list(self.allow_roots),
            "allow_remote": list(self.allow_remote),
            "storage_options": self.storage_options,
            "cache": self.cache,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """What `to_json` made."""
        return cls(
            document["data"],
            tuple(document["allow_roots"]),
            tuple(document["allow_remote"]),
            document["storage_options"],
            document["cache"],
        )


def _check_key(key: str, location: str) -> None:
    """Refuse a key that climbs, also in percents; the last slash of a folder is fine."""
    from urllib.parse import unquote

    for said in (key, unquote(key)):
        if said.rstrip("/"):
            try:
                checked_key(said.rstrip("/"))
            except FormatError as error:
                raise NotAllowed(f"{told(location)!r:.200} is no plain path: {error}") from error


def _covers(prefix: str, location: Location) -> bool:
    """Whether an allowed prefix has a location in it: it ends where a name does."""
    allowed = placed(prefix)
    key = allowed.key.rstrip("/")
    inside = not key or location.key == key or location.key.startswith(f"{key}/")
    return allowed.root == location.root and inside


def _read_options(path: str) -> dict[str, Any]:
    with files.opened(path, os.O_RDONLY) as descriptor:
        mode = files.status(descriptor, path).st_mode
        if not stat.S_ISREG(mode) or mode & 0o077:
            raise StorageError(
                errno.EACCES, "others may read this file of credentials: chmod 600 it", path
            )
        data = files.read_at(descriptor, _LARGEST_OPTIONS, 0, path)
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(isinstance(v, dict) for v in found.values()):
        # Nothing of what stands there is told.
        raise FormatError(f"{path} is no object of JSON with an object for every url in it")
    return found
