"""Any dataset into bins: in parallel, resumably, and proven equal at the end.

Responsible for: `convert`. ``job`` has the order of things, ``blocks`` reads the source and makes
of it what is stored, ``target`` writes it and knows how far an earlier run came, ``proof`` compares
the copy with its source.
"""

from __future__ import annotations

from splitpipe.conversion.job import ConversionReport, ConvertOptions, Progress, convert

__all__ = ["ConversionReport", "ConvertOptions", "Progress", "convert"]
