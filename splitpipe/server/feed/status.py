"""What is told of an iteration's delivery.

Responsible for: `status_of`, the JSON that pages, clients and metrics show of one that runs, and
`status_of_journal`, the same of one that does not, from what its journal says.

Rules:
- `current`, `total` and what is under `batches` are batches; everything else that is counted is
  samples, summed up over all cursors: what two followers had is counted twice.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Mapping
from typing import Any

from splitpipe.server.feed.desk import Desk
from splitpipe.server.feed.ledger import Ledger
from splitpipe.server.feed.sharing import Division
from splitpipe.server.feed.tape import Tape

__all__ = ["Rate", "state_of", "status_of", "status_of_journal"]

CLIENTS_SHOWN = 200
CURSORS_SHOWN = 200
RATE_S = 5.0


class Rate:
    """How fast a count grows, over the last seconds.

    Example:
        >>> rate = Rate()
        >>> [rate.at(now, count) for now, count in [(0.0, 0), (1.0, 10), (2.0, 30)]]
        [0.0, 10.0, 15.0]
    """

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def at(self, now_s: float, count: int) -> float:
        """Note the count, and give how much it grew in a second."""
        if self._seen and count < self._seen[-1][1]:
            self._seen.clear()
        self._seen.append((now_s, count))
        while len(self._seen) > 2 and self._seen[1][0] <= now_s - RATE_S:
            self._seen.popleft()
        then_s, before = self._seen[0]
        return (count - before) / (now_s - then_s) if now_s > then_s else 0.0


def status_of(desk: Desk, tape: Tape, division: Division, *, now_s: float) -> dict[str, Any]:
    """All but the rate, which depends on when it was asked before."""
    ledgers = {name: cursor.ledger for name, cursor in desk.cursors.items()}
    total = tape.ended.batches if tape.ended is not None else desk.total
    stages = tape.stats()
    broken = tape.broken
    status = _counted(ledgers, division, total=total)
    status["batches"]["made"] = tape.made
    return {
        **status,
        "state": state_of(desk, tape, division),
        "stages": list(stages.get("stages", ())),
        "doctor": str(stages.get("doctor") or ""),
        "clients": [
            {
                "session": session.name,
                "client": session.client,
                "rank": session.rank,
                "in_progress": cursor.ledger.samples(session.name),
                "last_seen_s": round(max(0.0, now_s - session.heard_s), 1),
            }
            for session, cursor in list(desk.sessions.values())[:CLIENTS_SHOWN]
        ],
        "clients_total": len(desk.sessions),
        "rubbish": desk.rubbish,
        "errors": []
        if broken is None
        else [{"sequence": broken.sequence, "message": str(broken.error)}],
    }


def status_of_journal(
    states: Mapping[str, Any], division: Division, *, total: int | None, state: str
) -> dict[str, Any]:
    """What is known of an iteration whose engine does not run.

    Args:
        states: of its cursors, by name, as `Journal.cursors` gives them.
        division: how it is divided.
        total: batches of its stream, if that is known.
        state: what its row says.

    Example:
        >>> ledger = Ledger()
        >>> ledger.grant("a", 0, [(32, 1, 0)])
        >>> import json
        >>> states = {"0": json.loads(ledger.text)}
        >>> status = status_of_journal(states, Division(), total=4, state="stopped")
        >>> status["in_progress"], status["batches"]["expected"], status["state"]
        ({'0': 32}, 4, 'stopped')
    """
    ledgers = {name: Ledger(kept) for name, kept in states.items()}
    return {
        **_counted(ledgers, division, total=total),
        "state": state,
        "rate": 0.0,
        "stages": [],
        "doctor": "",
        "clients": [],
        "clients_total": 0,
        "rubbish": 0,
        "errors": [],
    }


def _counted(
    ledgers: Mapping[str, Ledger], division: Division, *, total: int | None
) -> dict[str, Any]:
    counts = {name: ledger.counts for name, ledger in ledgers.items()}
    in_progress: dict[str, int] = {}
    cursors = []
    current = 0
    for name, ledger in ledgers.items():
        rank = division.rank(name)
        group = division.group(rank)
        of_cursor = None if total is None else division.total(total, group)
        in_progress[str(rank)] = in_progress.get(str(rank), 0) + counts[name].in_progress
        if ledger.next:
            current = max(current, division.made_for(ledger.next - 1, group))
        cursors.append(
            {
                "name": name,
                "rank": rank,
                "next": ledger.next,
                "total": of_cursor,
                "batches_completed": ledger.batches_completed,
                **dataclasses.asdict(counts[name]),
            }
        )
    return {
        "current": current if total is None else min(current, total),
        "total": total,
        **{
            field: sum(getattr(count, field) for count in counts.values())
            for field in ("completed", "filtered", "failed", "returned")
        },
        "in_progress": in_progress,
        "batches": {
            "made": current,
            "granted": sum(ledger.next for ledger in ledgers.values()),
            "completed": sum(ledger.batches_completed for ledger in ledgers.values()),
            "expected": None if total is None else _expected(cursors, division, total),
        },
        "cursors": cursors[:CURSORS_SHOWN],
    }


def _expected(cursors: list[dict[str, Any]], division: Division, total: int) -> int:
    """How many batches will have been delivered at the end, as far as it is known to whom."""
    if division.mode == "follow":
        return sum(one["total"] for one in cursors)
    return division.of_all_ranks(total)


def state_of(desk: Desk, tape: Tape, division: Division) -> str:
    """How an iteration stands: ``ready``, ``running``, ``done`` or ``failed``."""
    if tape.broken is not None:
        return "failed"
    cursors = list(desk.cursors.values())
    whole = division.mode == "follow" or len(cursors) == division.world_size
    if cursors and whole and all(cursor.is_done for cursor in cursors):
        return "done"
    return "running" if cursors else "ready"
