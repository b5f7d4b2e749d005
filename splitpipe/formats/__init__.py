"""Layouts of others, read where they lie: one module a format, no source is ever changed.

``docs/formats.md`` says for each what is recognised, which options there are, and what happens
with bad input.
"""

from __future__ import annotations

from splitpipe.formats.base import Format, Indexing, Source
from splitpipe.formats.recognise import FORMATS, recognise

__all__ = ["FORMATS", "Format", "Indexing", "Source", "recognise"]
