"""Views: datasets made of others, without copying anything.

Responsible for: every `Records` that reads through other `Records`: some rows (`subset`), some
columns (`columns`), several datasets end to end (`concat`) or side by side (`join`); and for
saying which rows a sample or a part of a split has. ``Dataset`` offers them as methods.

Rules:
- a view is lazy, and a value: what it reads is what its parents were when it was made;
- it pickles as its parents and what was chosen, and never closes a parent.
"""

from __future__ import annotations

from splitpipe.views.concat import Concat, concat
from splitpipe.views.join import Join, join
from splitpipe.views.selection import Selection
from splitpipe.views.split import sampled, sizes_of, split
from splitpipe.views.subset import Columns, Subset, columns, iterate_rows, subset

__all__ = [
    "Columns",
    "Concat",
    "Join",
    "Selection",
    "Subset",
    "columns",
    "concat",
    "iterate_rows",
    "join",
    "sampled",
    "sizes_of",
    "split",
    "subset",
]
