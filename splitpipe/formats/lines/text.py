"""Plain text: a record a line, a paragraph, or a file.

Responsible for: what a record of text is, and how its bytes become a ``str``.

Rules:
- a single file gives its lines, a folder its files, unless ``by=`` says otherwise;
- a line is a record also when it is empty; what follows the last line end is one only if it is not
  empty. Of a line, LF or CRLF is left out, of a paragraph the last one; nothing else is taken away
  from what the file holds, but a byte-order mark at its start;
- text that is not of its encoding is refused, never mended.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from splitpipe.errors import FormatError
from splitpipe.formats.base import Format, Indexing, Source
from splitpipe.formats.lines import finding
from splitpipe.formats.lines.finding import Bytes, LineScanner, Split
from splitpipe.formats.lines.options import check_broken, chosen_files, names_of
from splitpipe.formats.lines.records import IndexedRecords, Opening
from splitpipe.schema import Schema

__all__ = ["FORMAT", "checked_encoding", "text_of"]

SUFFIXES = (".txt", ".text")
_ASCII = bytes(range(128))


def checked_encoding(encoding: str) -> str:
    """An encoding by its one name, if line ends and separators are single bytes in it.

    Raises:
        FormatError: Python does not know it, or a byte of it may look like another character.
    """
    try:
        name = codecs.lookup(encoding).name
        if name in ("utf-8", "utf-8-sig"):
            return "utf-8"
        # A byte a character: ASCII where it is ASCII, and no pair that means one.
        if _ASCII.decode(name) == _ASCII.decode("ascii") and all(
            bytes((lead, 65)).decode(name, "replace").endswith("A") for lead in range(128, 256)
        ):
            return name
    except LookupError:
        raise FormatError(f"there is no encoding {encoding!r}") from None
    except UnicodeError:
        pass
    raise FormatError(
        f"files in {encoding} cannot be cut at bytes: convert them with "
        f"`iconv -f {encoding} -t UTF-8` to read them here"
    )


def text_of(data: bytes, encoding: str) -> str:
    """The text of some bytes.

    Raises:
        ValueError: they are not of this encoding.
    """
    try:
        return str(data, encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"not {encoding}: {error.reason} at byte {error.start} of it") from error


@dataclass(frozen=True, slots=True)
class _Text:
    encoding: str
    schema: Schema

    def decode(self, data: bytes) -> str:
        """The text."""
        return text_of(data, self.encoding)


def _whole(window: Bytes, ended: bool) -> Split:
    """All of the file, once it is there."""
    if not ended:
        return Split(np.empty(0, np.int64), np.empty(0, np.int64), 0)
    return Split(np.zeros(1, np.int64), np.array([len(window)]), len(window))


def _not_blank(window: Bytes, ended: bool) -> Split:
    return finding.drop_blank(window, finding.split_lines(window, ended))


_SPLITS = {"line": finding.split_lines, "paragraph": finding.split_paragraphs, "file": _whole}


def _recognises(source: Source) -> bool:
    return bool(source.suffixes() & set(SUFFIXES))


@dataclass(frozen=True, slots=True)
class Options:
    """What may be said about text.

    Attributes:
        by: ``"line"``, ``"paragraph"`` (what lies between blank lines) or ``"file"``; lines of a
            file and the files of a folder unless said.
        blank: ``"keep"`` or ``"skip"`` lines that hold nothing but spaces; for ``by="line"``.
        encoding: UTF-8, or one with a byte a character.
        broken: ``"raise"``, or ``"skip"`` to leave out and count what cannot be read.
        validate: look at every record while indexing.
        max_record: bytes of the longest record.
        suffixes: of the files of a folder, instead of ``.txt`` and ``.text``.
    """

    by: str | None = None
    blank: str = "keep"
    encoding: str = "utf-8"
    broken: str = "raise"
    validate: bool = False
    max_record: int = finding.DEFAULT_MAX_RECORD
    suffixes: Sequence[str] | None = None


def _open(source: Source, indexing: Indexing, **given: Any) -> IndexedRecords:
    """Open text; see `Options`."""
    options = Options(**given)
    check_broken(options.broken)
    by = options.by if options.by is not None else "file" if source.folder else "line"
    if by not in _SPLITS or options.blank not in ("keep", "skip"):
        raise FormatError(
            f"by= must be one of {', '.join(_SPLITS)}, and blank= 'keep' or 'skip', not {by!r} and "
            f"{options.blank!r}"
        )
    decoder = _Text(checked_encoding(options.encoding), Schema("str"))
    looks = options.validate or options.broken == "skip"
    scanner = LineScanner(
        "text",
        _not_blank if by == "line" and options.blank == "skip" else _SPLITS[by],
        by_line=by == "line",
        check=decoder.decode if looks else None,
        broken=options.broken,
        max_record=options.max_record,
        settings={
            "by": by,
            "blank": options.blank,
            "encoding": decoder.encoding if looks else None,
        },
    )
    paths = chosen_files(source, SUFFIXES, options.suffixes, "text")
    return IndexedRecords(Opening("text", source, indexing, given), paths, scanner, decoder)


FORMAT = Format(
    "text",
    "files .txt or .text, also .gz and .zst, or a folder with them",
    _recognises,
    _open,
    options=names_of(Options),
)
