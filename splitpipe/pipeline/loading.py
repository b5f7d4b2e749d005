"""What a user may say of running a pipeline that is seldom said.

Responsible for: `LoaderOptions`, the options of `Pipeline.loader` and `splitpipe.run` that guard a
run, and let it be understood afterwards.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypedDict

from splitpipe.pipeline.stages.policy import Policy

if TYPE_CHECKING:
    from splitpipe.recording.options import Record

__all__ = ["LoaderOptions"]


class LoaderOptions(TypedDict, total=False):
    """How a run is guarded; none of it but `on_error` changes what comes out.

    Attributes:
        on_error: what becomes of items that fail where their stage or source does not say it:
            ``"raise"`` (as None), ``"skip"``, or a policy, as for `map`; see docs/errors.md.
        record: a folder, or an `sp.Record`, for what is needed to make any item again.
        restarts: how many deaths of worker processes in a row are made good: workers are replaced,
            what they had not delivered is made again, and the stream is the same. A row is over
            when something new was delivered, so that a run of weeks may have any number of them.
            3 unless said; 0: none, the first is a `WorkerDied`; None: any number. An item that has
            ended three workers is an error in any case (`PoisonRecord`).
        deadline_s: most seconds that a stage in a worker process may take over one item, where the
            stage itself does not say it: after that, the stacks of all its threads are written into
            the log, and the worker is replaced as if it had died (`WorkerStalled` where that is too
            often). None, the default: as long as it likes. Waiting for input or output counts
            nowhere.
        resources: what each worker has of a Ray cluster (``executor="ray"``), where its stages do
            not say it: ``{"CPU": 1}`` unless given.
    """

    on_error: Policy | str | None
    record: Record | str | os.PathLike[str] | None
    restarts: int | None
    deadline_s: float | None
    resources: Mapping[str, float] | None
