"""The keys of the feed's sockets: CURVE, as ZeroMQ has it.

Responsible for: making the server's pair, reading it again. A client needs the public half alone,
and is given it with its ticket, over the connection that its token has proven.

Rules:
- the file is its owner's alone (0600, in a folder of 0700); keys that others can read are refused;
- the secret half is in no ``repr`` and no message.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from splitpipe.errors import FormatError, StorageError

__all__ = ["FeedKeys", "load_keys", "make_keys", "passing_keys"]

_FILE = "feed.key"
_LENGTH = 40  # of a key in the letters of Z85


@dataclass(frozen=True)
class FeedKeys:
    """A pair of CURVE keys, in the letters of Z85.

    Attributes:
        public: what clients are given.
        secret: what the engine's socket proves itself by.
    """

    public: str
    secret: str = field(repr=False)


def passing_keys() -> FeedKeys:
    """A pair that is kept nowhere: for a server that was given none, as long as it runs.

    Example:
        >>> keys = passing_keys()
        >>> len(keys.public), len(keys.secret), keys.secret in repr(keys)
        (40, 40, False)
    """
    import zmq

    public, secret = (half.decode("ascii") for half in zmq.curve_keypair())
    return FeedKeys(public, secret)


def make_keys(folder: Path, *, replace: bool = False) -> FeedKeys:
    """Make a pair of keys in a server's folder of keys; return those that are there unless told.

    Raises:
        StorageError: the folder cannot be written.
    """
    there = None if replace else load_keys(folder)
    if there is not None:
        return there
    import zmq

    public, secret = (half.decode("ascii") for half in zmq.curve_keypair())
    path, half_made = folder / _FILE, folder / f".{_FILE}.{os.getpid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(half_made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(f"{public}\n{secret}\n")
            file.flush()
            os.fsync(file.fileno())
        half_made.replace(path)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror or error}") from error
    return FeedKeys(public, secret)


def load_keys(folder: Path) -> FeedKeys | None:
    """Read the keys of a server, or return None where there are none.

    Raises:
        FormatError: the file is no pair of keys.
        StorageError: it cannot be read, or others can.
    """
    path = folder / _FILE
    try:
        with path.open(encoding="ascii") as file:
            others = stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077
            lines = file.read(4 * _LENGTH).split("\n")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        lines, others = [], 0
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror or error}") from error
    if others:
        raise StorageError(
            f"{path} may be read by others than its owner. Say `chmod 600 {path}`, and make new "
            "keys if somebody may have read it: `splitpipe keys ROOT --replace`"
        )
    if len(lines) < 2 or [len(line) for line in lines[:2]] != [_LENGTH, _LENGTH]:
        raise FormatError(
            f"{path} is no pair of keys. Make new ones: splitpipe keys ROOT --replace"
        )
    return FeedKeys(lines[0], lines[1])
