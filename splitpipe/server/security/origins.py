"""By which names the server may be called, and which pages may call it.

Responsible for: the answer to the headers ``Host``, ``Origin`` and ``Sec-Fetch-Site``.

Rules:
- a name that is not the server's own is refused: a page of somebody else that has its name point to
  127.0.0.1 would otherwise be let in by the browser (DNS rebinding);
- whatever changes something is refused when a page of another origin asks for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import urlsplit

__all__ = ["HostRules"]

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?")
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class HostRules:
    """The names of one server.

    Args:
        listening: the address that it listens to; a name of its own unless it means all addresses.
        allowed: further names, without ports.

    Example:
        >>> rules = HostRules("127.0.0.1", ["data.example"])
        >>> rules.knows("localhost:8000"), rules.knows("evil.example"), rules.knows("data.example")
        (True, False, True)
        >>> rules.may_ask("POST", host="localhost:8000", origin="http://evil.example")
        False
    """

    def __init__(self, listening: str, allowed: Iterable[str] = ()) -> None:
        own = {listening} - {"0.0.0.0", "::", ""}
        self._names = frozenset(name.lower().strip("[]") for name in (*_LOOPBACK, *own, *allowed))

    def knows(self, host: str | None) -> bool:
        """Whether a ``Host`` header names this server."""
        found = _HOST.fullmatch(host or "")
        return found is not None and found["name"].lower().strip("[]") in self._names

    def may_ask(
        self,
        method: str,
        *,
        host: str,
        origin: str | None = None,
        site: str | None = None,
        cookie: bool = False,
    ) -> bool:
        """Whether a request may change something, by where it comes from.

        Args:
            method: of HTTP; those that change nothing always may.
            host: the ``Host`` header, which `knows` has accepted.
            origin: the ``Origin`` header: a browser says which page asks. Programs send none.
            site: the ``Sec-Fetch-Site`` header of browsers.
            cookie: whether a cookie says who asks; a browser adds it to anybody's request.
        """
        if method in _SAFE:
            return True
        if site not in (None, "same-origin", "none"):
            return False
        if origin is None:
            return not cookie
        try:
            asked = urlsplit(origin).netloc.lower()
        except ValueError:
            return False
        return asked != "" and _with_port(asked, origin) == _with_port(host.lower(), origin)


def _with_port(netloc: str, origin: str) -> str:
    if _HOST.fullmatch(netloc) is None:
        return ""  # equal to nothing that a browser sends: `may_ask` has seen the origin's own
    default = "443" if origin.lower().startswith("https:") else "80"
    return netloc if re.search(r":[0-9]+$", netloc) else f"{netloc}:{default}"
