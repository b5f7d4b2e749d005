"""What a table says of where a file lies, and whether it may say so.

Responsible for: `Rules`, which turn a cell of a table into a `Location` (a store and a key in it)
or refuse it; and `told`, a url without what may be secret in it.

Rules:
- a table may name anything, and is not trusted: without `allow` it reaches what lies below its base
  folder, or on the origin (scheme, host and port; bucket) of its base, and nothing else;
- no path climbs (``..``), whatever is allowed; a url with a user or password in it is refused;
- ``"*"`` allows every remote origin, but not this machine or a private address that is written as a
  number: those have to be named. (What a name resolves to, and where a server redirects to, is for
  the store to judge.)
- a location is arithmetic: nothing is opened here.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Final
from urllib.parse import unquote, urlsplit

from splitpipe.errors import FormatError
from splitpipe.stores import checked_key

__all__ = ["Location", "Rules", "is_url", "placed", "told"]

_URL: Final = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_WEB: Final = ("http", "https")
_PORTS: Final = {"http": 80, "https": 443}
ANY: Final = "*"


@dataclass(frozen=True, slots=True)
class Location:
    """Where a file lies.

    Attributes:
        root: url of the store, or a local folder.
        key: in it.
    """

    root: str
    key: str

    @property
    def url(self) -> str:
        """Both together, for people: without what may be secret."""
        return told(self.root.rstrip("/") + "/" + self.key)


def is_url(text: str) -> bool:
    """Whether a text is a url, not a path.

    Example:
        >>> is_url("s3://bucket/a.csv"), is_url("a.csv"), is_url("C:/a.csv")
        (True, False, False)
    """
    return _URL.match(text) is not None


def told(url: str) -> str:
    """A url as messages show it: without user, password and query, which may be secret.

    Example:
        >>> told("https://me:word@example.com/a.jpg?signature=123"), told("/data/a.jpg")
        ('https://example.com/a.jpg?...', '/data/a.jpg')
    """
    found = _URL.match(url)
    if found is None:
        return url
    host, slash, path = url[found.end() :].partition("/")
    if found[1].lower() in _WEB:
        host = host.partition("?")[0]
        path, query, _ = path.partition("?")
        path += "?..." if query else ""
    return f"{found[0]}{host.rpartition('@')[2]}{slash}{path}"


def placed(url: str) -> Location:
    """The store and the key of a url.

    Raises:
        FormatError: it is none that leads anywhere, or has a password in it.

    Example:
        >>> placed("s3://bucket/a/b.jpg")
        Location(root='s3://bucket/', key='a/b.jpg')
        >>> placed("HTTPS://Example.com:443/a%20b.jpg?x=1#part")
        Location(root='https://example.com/', key='a%20b.jpg?x=1')
    """
    found = _URL.match(url)
    scheme = "" if found is None else found[1].lower()
    if found is None or not url.isprintable():
        raise FormatError(f"{url!r:.200} is no url")
    if scheme == "file":
        host, _, path = url[found.end() :].partition("/")
        if host not in ("", "localhost"):
            raise FormatError(f"{told(url)!r:.200} names a file of another machine")
        folder, _, name = ("/" + unquote(path)).rpartition("/")
        return Location(folder or "/", name)
    if scheme not in _WEB:
        host, _, key = url[found.end() :].partition("/")
        if not host or "@" in host:
            raise FormatError(f"{told(url)!r:.200} names no bucket, or has a password in it")
        return Location(f"{scheme}://{host}/", key)
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError as error:
        raise FormatError(f"{told(url)!r:.200} is no url: {error}") from error
    if not host or parts.username is not None or parts.password is not None:
        raise FormatError(
            f"{told(url)!r:.200} has no host, or a user or password in it: give those as "
            "storage_options="
        )
    host = f"[{host}]" if ":" in host else host
    origin = host if port in (None, _PORTS[scheme]) else f"{host}:{port}"
    query = f"?{parts.query}" if parts.query else ""
    return Location(f"{scheme}://{origin}/", parts.path.lstrip("/") + query)


@dataclass(frozen=True, slots=True)
class Rules:
    """What a table may name.

    Args:
        base: what relative paths are relative to: a local folder, or a url.
        allow: beside of that: origins (``"https://host"``, ``"https://*.host"``,
            ``"s3://bucket"``), each with the beginning of a path if you like; local folders; or
            ``"*"`` for all remote origins.

    Example:
        >>> rules = Rules("/data", allow=("https://*.example.com",))
        >>> rules.locate("a/1.jpg"), rules.locate("/data/a/1.jpg").key
        (Location(root='/data', key='a/1.jpg'), 'a/1.jpg')
        >>> rules.locate("https://images.example.com/1.jpg").root
        'https://images.example.com/'
        >>> rules.locate("https://elsewhere.org/1.jpg")
        Traceback (most recent call last):
        splitpipe.errors.FormatError: 'https://elsewhere.org/1.jpg' lies outside of /data, https://*.example.com...
    """

    base: str
    allow: tuple[str, ...] = ()

    def locate(self, text: object) -> Location:
        """Where the file of a cell lies.

        Raises:
            FormatError: it is no path or url, or the table may not name it.
        """
        if not isinstance(text, str):  # a table may hold anything
            raise FormatError(f"a path or url is text, not a {type(text).__name__}")
        if is_url(text):
            location = placed(text)
            if "://" not in location.root:
                return self._local(os.path.join(location.root, location.key), text)
            _check(location.key, text)
            if location.root == _base(self.base).root or self._allows(location):
                return location
            raise self._refused(text, location.root.rstrip("/"))
        if text.startswith("/"):
            return self._local(text, text)
        base = _base(self.base)
        relative = "/".join(part for part in text.split("/") if part != ".")
        _check(relative, text)
        return Location(base.root, base.key + relative)

    def _local(self, path: str, text: str) -> Location:
        if ".." in path.split("/"):
            raise FormatError(f"{text!r:.200} climbs out of its folder")
        path = os.path.normpath(path)
        for folder in (self.base, *self.allow):
            if is_url(folder) or folder == ANY:
                continue
            inside = path.removeprefix(os.path.join(folder, ""))
            if inside != path:
                _check(inside, text)
                return Location(folder, inside)
        raise self._refused(text, os.path.dirname(path))

    def _allows(self, location: Location) -> bool:
        scheme, _, host = location.root.rstrip("/").partition("://")
        for one in self.allow:
            if one == ANY:
                if not _is_private(host):
                    return True
            elif is_url(one):
                wanted = _base(one)
                wanted_scheme, _, pattern = wanted.root.rstrip("/").partition("://")
                inside = unquote(location.key).startswith(unquote(wanted.key))
                if scheme == wanted_scheme and fnmatchcase(host, pattern) and inside:
                    return True
        return False

    def _refused(self, text: str, place: str) -> FormatError:
        named = f", {', '.join(self.allow)}" if self.allow else ""
        return FormatError(
            f"{told(text)!r:.200} lies outside of {told(self.base)}{named}: a table reaches what "
            f"lies below its folder or on its origin, and what allow= names; allow=[{place!r}] "
            "would let it"
        )


def rules_of(base: str, allow: str | Sequence[str]) -> Rules:
    """Rules as a user says them: folders become absolute, what means nothing is refused."""
    given: tuple[object, ...] = (allow,) if isinstance(allow, str) else tuple(allow)
    made: list[str] = []
    for one in given:
        if not isinstance(one, str) or not one:
            raise FormatError(f"allow= takes origins, folders or '*', not {one!r}")
        made.append(one if one == ANY or is_url(one) else os.path.abspath(one))
    return Rules(base if is_url(base) else os.path.abspath(base), tuple(made))


@lru_cache(256)
def _base(text: str) -> Location:
    """The store of a base, and what keys below it begin with."""
    if not is_url(text):
        return Location(text, "")
    location = placed(text)
    if "://" not in location.root:
        return Location(os.path.join(location.root, location.key), "")
    key = location.key
    return Location(location.root, key if not key or key.endswith("/") else key + "/")


def _check(key: str, text: str) -> None:
    """Refuse a key that climbs, also where that is written in percents."""
    path = key.partition("?")[0]
    try:
        checked_key(path)
        checked_key(unquote(path))
    except FormatError as error:
        raise FormatError(
            f"{told(text)!r:.200} leads nowhere: a path is of plain names, without '..'"
        ) from error


def _is_private(host: str) -> bool:
    """Whether a host is this machine, or an address that the world does not reach."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    name = name.strip("[]").rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return not ipaddress.ip_address(name).is_global
    except ValueError:
        return False
