"""What the values of a dataset are like: sizes, ranges, histograms, by column.

Responsible for: `summarise`. ``scan`` reads the records, ``numbers`` has numbers seen in passing,
``columns`` what is noted of values of each kind.
"""

from __future__ import annotations

from splitpipe.summary.columns import ColumnSummary
from splitpipe.summary.numbers import Histogram
from splitpipe.summary.scan import Summary, summarise

__all__ = ["ColumnSummary", "Histogram", "Summary", "summarise"]
