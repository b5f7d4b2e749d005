"""The demo's data: the source files of the standard library, and the stages that read them.

Responsible for: finding text that every machine has, and the functions that turn a stored file
into sequences of bytes. The functions stand in a module of their own because worker processes
import them by name.
"""

from __future__ import annotations

import io
import sysconfig
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["END", "Bytes", "decode", "encode", "pack", "source_files"]

Bytes: TypeAlias = npt.NDArray[np.uint8]

END = 0
"""The byte that ends a file in the stream; it stands in no Python source file."""


def source_files(*, at_most_nbytes: int | None = None) -> list[Path]:
    """The standard library's own ``.py`` files, as `sysconfig` finds them, in a fixed order.

    Args:
        at_most_nbytes: stop before the files together are larger than this.

    Example:
        >>> any(path.name == "tokenize.py" for path in source_files())
        True
    """
    root = Path(sysconfig.get_path("stdlib"))
    foreign = {"site-packages", "dist-packages"}
    found = sorted(p for p in root.rglob("*.py") if foreign.isdisjoint(p.parts) and p.is_file())
    if at_most_nbytes is None:
        return found
    chosen: list[Path] = []
    for path in found:
        at_most_nbytes -= path.stat().st_size
        if at_most_nbytes < 0:
            break
        chosen.append(path)
    return chosen


def decode(record: bytes) -> str:
    r"""The text of a source file: its declared encoding, and ``\n`` at the end of every line.

    Files that are broken on purpose (the tests of the standard library have some) are read as
    Latin-1, in which every byte is a character.

    Example:
        >>> decode(b"# coding: latin-1\r\nx = '\xe9'\r\n")
        "# coding: latin-1\nx = 'é'\n"
    """
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(record).readline)
        text = record.decode(encoding)
    except (SyntaxError, UnicodeDecodeError, LookupError):
        text = record.decode("latin-1")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def encode(text: str) -> Bytes:
    """The UTF-8 bytes of a text as an array of uint8, with the mark `END` behind them.

    Example:
        >>> encode("hi").tolist()
        [104, 105, 0]
    """
    return np.frombuffer(text.encode("utf-8", "replace") + bytes([END]), dtype=np.uint8)


def pack(files: Iterable[Bytes], *, length: int) -> Iterator[Bytes]:
    """Cut the stream of files into sequences of exactly ``length`` bytes; the last rest is left.

    Example:
        >>> [s.tolist() for s in pack([encode("abc"), encode("d")], length=3)]
        [[97, 98, 99], [0, 100, 0]]
    """
    rest = np.empty(0, dtype=np.uint8)
    for file in files:
        stream = np.concatenate([rest, file])
        whole = len(stream) // length * length
        yield from stream[:whole].reshape(-1, length)
        rest = stream[whole:]
