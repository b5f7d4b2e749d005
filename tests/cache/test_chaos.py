"""Many processes on a cache that is much too small, some of which are killed: a short run.

The long one is ``python -m benchmarks.cachechaos``.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.cachechaos import Plan, run
from splitpipe.cache import folder


@pytest.mark.deadline(120)
@pytest.mark.parametrize("locks", ["bytes", "stripes"])
def test_nothing_wrong_is_read_and_nothing_fetched_twice(
    tmp_path: Path, locks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if locks == "stripes":
        monkeypatch.setattr(folder, "has_byte_locks", lambda path: False)
    plan = Plan(
        seconds=2.5,
        workers=10,
        objects=6,
        object_nbytes=(2 << 20) + 12345,
        block_nbytes=1 << 14,
        limit_nbytes=6 << 18,
        kill_every_s=0.15,
        seed=7,
    )
    outcome = run(plan, tmp_path)
    assert outcome.reads > 0
    assert outcome.killed > 0
    assert (outcome.wrong, outcome.failed, outcome.twice) == (0, 0, 0)
    assert outcome.drift_nbytes == 0
    assert outcome.peak_nbytes <= plan.limit_nbytes + plan.object_nbytes
