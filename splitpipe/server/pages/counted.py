"""Statistics of columns, as what templates show.

Responsible for: the facts, the histogram and the most frequent values of every column.

Rules: pure functions; what was not counted is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from splitpipe.server.pages.charts import Histogram, histogram, number
from splitpipe.server.pages.rendering import count, nbytes

__all__ = ["columns"]

JSON = Mapping[str, Any]

_FACTS = (
    ("count", "Values"),
    ("missing", "Missing"),
    ("not_finite", "Not finite"),
    ("min", "Least"),
    ("max", "Most"),
    ("mean", "Mean"),
    ("std", "Standard deviation"),
)
_MOST_COMMON = 5
_LONGEST = 60


def columns(found: JSON) -> list[dict[str, Any]]:
    """Every column that was counted, in its order.

    Args:
        found: What was counted: a list of figures under ``"columns"``.
    """
    return [_column(told) for told in found.get("columns") or ()]


def _column(told: JSON) -> dict[str, Any]:
    lengths = told.get("lengths") or {}
    drawn = _histogram(told.get("histogram"), str(told.get("unit") or ""))
    facts = [(label, _text(told[key])) for key, label in _FACTS if _matters(key, told.get(key))]
    distinct = told.get("distinct") or {}
    if distinct.get("count") is not None:
        about = "" if distinct.get("exact", True) else "about "
        facts.insert(2, ("Distinct", about + _text(distinct["count"])))
    if drawn is None:
        drawn = _histogram(lengths, "bytes")
        for key, label in (("min", "Shortest"), ("max", "Longest"), ("mean", "Mean length")):
            if lengths.get(key) is not None:
                facts.append((label, nbytes(lengths[key])))
    shapes = [f"{tuple(shape)}: {count(times)}" for shape, times in told.get("shapes") or ()]
    if shapes:
        facts.append(("Shapes", ", ".join(shapes[:_MOST_COMMON])))
    return {
        "name": told["name"],
        "type": told.get("type") or "",
        "histogram": drawn,
        "top": _top(told.get("common") or told.get("members") or (), told.get("count") or 0),
        "facts": facts,
    }


def _matters(key: str, value: Any) -> bool:
    return value is not None and not (key == "not_finite" and value == 0)


def _text(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return count(value)
    return number(value) if isinstance(value, float) else str(value)


def _histogram(told: JSON | None, about: str) -> Histogram | None:
    """A histogram, unless there is one value only, which needs no drawing."""
    if not told or not told.get("counts") or len(told.get("edges") or ()) < 2:
        return None
    if told["edges"][0] == told["edges"][-1]:
        return None
    return histogram(told["counts"], told["edges"], about=about)


def _top(told: Iterable[Any], total: int) -> list[dict[str, Any]]:
    return [
        {
            "text": str(value)[:_LONGEST],
            "blank": "blanks" if value else "empty",  # shown for what could not be seen
            "count": times,
            "of": max(total, times, 1),
        }
        for value, times in list(told)[:_MOST_COMMON]
    ]
