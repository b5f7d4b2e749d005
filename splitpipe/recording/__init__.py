"""The flight recorder: which records made which batch, in small files that survive a kill.

Responsible for: writing what a loader delivers (`recorder`), the files themselves (`lines`,
`segments`), what is said of the pipeline (`description`), and reading it all again (`reading`).
Making an item once more is done by `splitpipe.verification`.
"""

from __future__ import annotations

from splitpipe.recording.options import Record
from splitpipe.recording.reading import Entry, Recording

__all__ = ["Entry", "Record", "Recording"]
