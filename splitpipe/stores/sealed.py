"""Credentials, held where nothing that is shown or stored can reach them.

Responsible for: `Sealed`, the options of a store; `travelling`, which lets them go to another
process; `told_url`, a url as it may be shown; `hidden`, a text without what is secret in a url.

Rules:
- what is sealed is in no repr, message or pickle. A pickle holds a name, which means something in
  the process that sealed it, and in those that it forks;
- only who writes to a pipe that nobody else reads may pickle inside `travelling`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from splitpipe.errors import StorageError

__all__ = ["Sealed", "hidden", "told_folder", "told_url", "travelling", "travels"]

_travels: ContextVar[bool] = ContextVar("travels", default=False)
_here: weakref.WeakValueDictionary[str, Sealed] = weakref.WeakValueDictionary()


@contextlib.contextmanager
def travelling() -> Iterator[None]:
    """Let what is pickled meanwhile hold credentials: only for a pipe to a process of our own.

    Example:
        >>> import pickle
        >>> with travelling():
        ...     b"hunter2" in pickle.dumps(Sealed({"secret": "hunter2"}))
        True
    """
    token = _travels.set(True)
    try:
        yield
    finally:
        _travels.reset(token)


def travels() -> bool:
    """Whether what is pickled now may hold credentials."""
    return _travels.get()


class Sealed:
    """Options of which some are secret, as a whole.

    Example:
        >>> import pickle
        >>> sealed = Sealed({"secret": "hunter2"})
        >>> sealed, b"hunter2" in pickle.dumps(sealed), sealed.open()["secret"]
        (Sealed(1 value), False, 'hunter2')
    """

    def __init__(self, values: Mapping[str, Any], *, name: str | None = None) -> None:
        self._values: dict[str, Any] | None = dict(values)
        self._name = name or os.urandom(16).hex()
        _here[self._name] = self

    def open(self) -> dict[str, Any]:
        """The values.

        Raises:
            StorageError: with ``errno.EACCES``: this is another process, and they did not travel.
        """
        if self._values is None:
            text = (
                "the options it was opened with, credentials among them, do not travel with what is"
                " stored: open it again with storage_options, or let credentials come from the"
                " environment"
            )
            raise StorageError(errno.EACCES, text)
        return dict(self._values)

    def here(self) -> bool:
        """Whether it can be opened here."""
        return self._values is not None

    def __reduce__(self) -> tuple[Callable[..., Sealed], tuple[object, ...]]:
        shown = _travels.get() or not self._values
        return _arrived, (self._name, self._values if shown else None)

    def __repr__(self) -> str:
        count = len(self._values or ())
        return f"Sealed({count} value{'s' * (count != 1)})"


def _arrived(name: str, values: dict[str, Any] | None) -> Sealed:
    known = _here.get(name)
    if known is not None and known._values is not None:
        return known
    sealed = Sealed(values or {}, name=name)
    sealed._values = values
    return sealed


def told_url(url: str) -> str:
    """A url as it may be shown and stored: without user, password, query and fragment.

    Example:
        >>> told_url("https://me:pw@host:8/a/b?X-Amz-Signature=1f#x")
        'https://host:8/a/b'
    """
    if "://" not in url:
        return url.partition("?")[0] if re.search(r"\?[^/]*=", url) else url
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def told_folder(url: str) -> str:
    """The same of what keys are below.

    Example:
        >>> told_folder("s3://bucket/data"), told_folder("s3://bucket/")
        ('s3://bucket/data/', 's3://bucket/')
    """
    told = told_url(url)
    return told if told.endswith("/") else told + "/"


def hidden(text: str) -> str:
    """A text of somebody else's, with every url in it as `told_url` tells it.

    Example:
        >>> hidden("no answer from https://me:pw@host/a?sig=1f (refused)")
        'no answer from https://host/a (refused)'
        >>> hidden("no answer to /a/b?sig=1f&x=2")
        'no answer to /a/b'
    """
    text = re.sub(r"\w[\w+.-]*://[^\s'\"<>)]+", lambda found: told_url(found[0]), text)
    return re.sub(r"(/[^\s'\"<>?)]*)\?[^\s'\"<>)]*", r"\1", text)
