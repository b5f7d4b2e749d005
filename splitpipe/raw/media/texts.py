"""Text and JSON beside the media.

Responsible for: `text` and `json`, and the decoders that they make.
"""

from __future__ import annotations

import json as _json
from dataclasses import dataclass
from typing import Any

from splitpipe.errors import FormatError
from splitpipe.raw.media.common import decoding
from splitpipe.schema import Field

__all__ = ["JsonDecoder", "TextDecoder", "json", "text"]


@dataclass(frozen=True, slots=True)
class TextDecoder:
    """See `text`, which makes it."""

    encoding: str

    @property
    def field(self) -> Field:
        """The column that it makes."""
        return Field("str")

    def __call__(self, data: bytes) -> str:
        """The text of a file's bytes."""
        with decoding(f"text in {self.encoding}", data):
            return data.decode(self.encoding)


def text(encoding: str = "utf-8") -> TextDecoder:
    r"""Decode text.

    Example:
        >>> text()(b"caf\xc3\xa9")
        'café'
    """
    try:
        "".encode(encoding)
    except LookupError as error:
        raise FormatError(f"there is no encoding {encoding!r}") from error
    return TextDecoder(encoding)


@dataclass(frozen=True, slots=True)
class JsonDecoder:
    """See `json`, which makes it."""

    @property
    def field(self) -> Field:
        """The column that it makes."""
        return Field("json")

    def __call__(self, data: bytes) -> Any:
        """The value of a file's bytes."""
        with decoding("JSON", data):
            return _json.loads(data)


def json() -> JsonDecoder:
    """Decode JSON.

    Example:
        >>> json()(b'{"label": 3}')
        {'label': 3}
    """
    return JsonDecoder()
