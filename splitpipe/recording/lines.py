"""Lines of a recording: JSON, each with its own checksum.

Responsible for: one line to and from bytes. A line is a JSON object whose last member, ``crc``, is
the CRC32C of everything before it; any program that reads JSON lines can read it.

Rules:
- a line is written by one call and read whole or not at all: a torn or changed one is None.
"""

from __future__ import annotations

import json
from typing import Any

from splitpipe.storage.native.kernel import crc32c

__all__ = ["decode", "encode", "seal"]

_MARK = b',"crc":"'
_TAIL = len(_MARK) + len(b'00000000"}\n')


def encode(document: dict[str, Any]) -> bytes:
    r"""Return the line of a JSON object that is not empty.

    Example:
        >>> line = encode({"step": 1})
        >>> line.startswith(b'{"step":1,"crc":"'), line.endswith(b'"}\n')
        (True, True)
        >>> decode(line), decode(line.replace(b"1", b"2", 1))
        ({'step': 1}, None)
    """
    return seal(json.dumps(document, separators=(",", ":")).encode()[:-1])


def seal(opened: bytes) -> bytes:
    """Return the line of an object that is open: everything but its closing brace."""
    return b'%s,"crc":"%08x"}\n' % (opened, crc32c(opened))


def decode(line: bytes) -> dict[str, Any] | None:
    """Return the object of a line without its checksum; None if it is not whole."""
    opened, tail = line[:-_TAIL], line[-_TAIL:]
    if not tail.startswith(_MARK) or not tail.endswith(b'"}\n'):
        return None
    if tail[len(_MARK) : -3] != b"%08x" % crc32c(opened):
        return None
    try:
        document = json.loads(opened + b"}")
    except ValueError:
        return None
    return document if isinstance(document, dict) else None
