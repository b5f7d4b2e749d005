"""Objects behind a web server: ``http://`` and ``https://``.

Responsible for: `HttpStore`, which reads below one url.

Rules:
- a key is a reference relative to the url, as it would stand in a page: what is percent-encoded
  stays so, what may not stand in a url is encoded, and a key may bring its own ``?query``;
- user and password of the url, its query, and headers from the options are sent to its own origin
  alone, and never shown;
- there is no way to list or to write: both raise with ``errno.ENOTSUP``.
"""

from __future__ import annotations

import base64
import errno
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from splitpipe.errors import StorageError
from splitpipe.stores.base import ObjectStat, checked_key
from splitpipe.stores.connections import Connections
from splitpipe.stores.failures import unsupported
from splitpipe.stores.forking import ForkLock
from splitpipe.stores.patience import Timeouts
from splitpipe.stores.ranges import Target, look, read_range
from splitpipe.stores.sealed import Sealed, told_folder, told_url

__all__ = ["HttpStore"]

_OPTIONS = ("headers", "allow_redirects_to", "ca_certs", "client_kwargs")


class HttpStore:
    """What lies below a url; read only.

    Args:
        url: ``http://host/path`` or ``https://...``; may hold user, password and query.
        options: ``headers`` for every request; ``allow_redirects_to``, origins such as
            ``"https://cdn.example.org"``, or ``"*"``; ``ca_certs``, a file. ``client_kwargs`` may
            hold ``headers`` too, as fsspec's options do.
        timeouts: of each request.

    Attributes:
        url: of the store, without what is secret.

    Raises:
        StorageError: with ``errno.EINVAL``: an option is not known.

    Example:
        >>> HttpStore("https://me:secret@example.org/data?token=t")
        HttpStore('https://example.org/data/')
    """

    def __init__(
        self,
        url: str,
        *,
        options: Mapping[str, Any] | Sealed | None = None,
        timeouts: Timeouts | None = None,
    ) -> None:
        self.url = told_folder(url)
        if isinstance(options, Sealed):
            self._sealed = options
        else:
            secret = {"url": url} if url != told_url(url) else {}
            self._sealed = Sealed({**secret, **(options or {})})
            self._check(options or {})
        self._timeouts = timeouts or Timeouts()
        self._lock = ForkLock()
        self._begun: tuple[Connections, Target, str] | None = None

    def stat(self, key: str) -> ObjectStat:
        """See `Store.stat`."""
        connections, target = self._target(key)
        return look(connections, target)

    def read(
        self, key: str, start: int = 0, stop: int | None = None, *, tag: str | None = None
    ) -> bytes:
        """See `Store.read`."""
        connections, target = self._target(key)
        return read_range(connections, target, start, stop, tag)

    def list(self, prefix: str = "") -> Iterator[tuple[str, ObjectStat]]:
        """Raises with ``errno.ENOTSUP``: the protocol knows no listing."""
        raise unsupported(self.url, "list what it has")

    def write(self, key: str, data: bytes, *, expected: str | None = None) -> ObjectStat:
        """Raises with ``errno.ENOTSUP``."""
        raise unsupported(self.url, "be written to")

    def close(self) -> None:
        """See `Store.close`."""
        if self._begun is not None:
            self._begun[0].close()

    def _target(self, key: str) -> tuple[Connections, Target]:
        """The object of a key, and what to reach it by."""
        path, mark, own = key.partition("?")
        checked_key(path)
        with self._lock:
            if self._begun is None:
                self._begun = self._begin()
            connections, base, query = self._begun
        reference = quote(path, safe=_AS_IT_STANDS)
        asked = "&".join(part for part in (query, quote(own, safe=_IN_QUERY)) if part)
        url = base.url + reference + (f"?{asked}" if asked else mark)
        return connections, Target(url, base.where + path, base.headers, base.allowed)

    def _begin(self) -> tuple[Connections, Target, str]:
        options = self._sealed.open()
        parts = urlsplit(options.pop("url", self.url))
        headers = {**options.get("client_kwargs", {}).get("headers", {})}
        headers.update(options.get("headers", {}))
        user, at, host = parts.netloc.rpartition("@")
        if at:
            login = base64.b64encode(unquote(user).encode()).decode()
            headers.setdefault("Authorization", f"Basic {login}")
        path = parts.path if parts.path.endswith("/") else parts.path + "/"
        allowed = options.get("allow_redirects_to", ())
        allowed = frozenset([allowed] if isinstance(allowed, str) else allowed)
        target = Target(
            urlunsplit((parts.scheme, host, quote(path, safe=_AS_IT_STANDS), "", "")),
            self.url,
            headers,
            frozenset(origin.rstrip("/") for origin in allowed),
        )
        connections = Connections(self._timeouts, ca_certs=options.get("ca_certs"))
        return connections, target, parts.query

    def _check(self, options: Mapping[str, Any]) -> None:
        unknown = sorted(set(options) - set(_OPTIONS))
        if unknown:
            text = f"storage_options {unknown} are not known for http: use {', '.join(_OPTIONS)}"
            raise StorageError(errno.EINVAL, text, self.url)

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.url, self._sealed, self._timeouts)

    def __repr__(self) -> str:
        return f"HttpStore({self.url!r})"


_AS_IT_STANDS = "/%:@!$&'()*+,;=~"
_IN_QUERY = _AS_IT_STANDS + "?"


def _again(url: str, sealed: Sealed, timeouts: Timeouts) -> HttpStore:
    return HttpStore(url, options=sealed, timeouts=timeouts)
