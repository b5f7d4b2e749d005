"""What the server knows, as what templates show.

Responsible for: datasets, column sets, records, iterations and tasks as flat values: names, urls,
numbers and sentences.

Rules:
- pure functions of JSON; what is not there yet is shown as not there, never an error;
- urls are quoted here, once: names come from clients.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from splitpipe.server.pages.charts import shares
from splitpipe.server.pages.rendering import NOTHING, count, nbytes, rate

__all__ = ["cells", "dataset", "facts", "iteration", "paging", "task", "text_of"]

JSON = Mapping[str, Any]

_LIVE_TASKS = frozenset({"queued", "running", "aborting"})
_LONGEST = 2000
_COUNTED = (
    ("missing", "nothing for {n:,} records of the first one"),
    ("extra", "{n:,} rows that belong to no record"),
    ("duplicates", "{n:,} rows with a name that an earlier row has"),
    ("no_uid", "{n:,} rows without a name"),
)
"""What is told of a join, by the name of its count."""


def dataset(told: JSON) -> dict[str, Any]:
    """A dataset for a list, and for its own page."""
    sets = [column_set(one) for one in told.get("column_sets") or ()]
    return {
        "name": told["name"],
        "url": f"/datasets/{quote(told['name'], safe='')}",
        "rows": told["records"] if told.get("records") is not None else told.get("rows"),
        "uid_column": told.get("uid_column"),
        "join": told.get("join"),
        "created_at": told.get("created_at"),
        "column_sets": sets,
        "column_set_names": [one["name"] for one in sets],
        "columns": [_column(one) for one in told.get("columns") or ()],
        "warnings": warnings(told),
        "problem": told.get("problem"),
    }


def column_set(told: JSON) -> dict[str, Any]:
    """One column set of a dataset's page."""
    return {
        "name": told["name"],
        "status": told.get("status") or "ready",
        "error": told.get("error"),
        "format": told.get("format"),
        "rows": told.get("rows"),
        "location": told.get("location"),
        "uploaded": bool(told.get("uploaded")),
    }


def warnings(told: JSON) -> list[str]:
    """What somebody should know about how column sets go together."""
    lines = []
    for one in told.get("join_counts") or ():
        found = [text.format(n=one[key]) for key, text in _COUNTED if one.get(key)]
        if found:
            lines.append(f"Column set “{one['column_set']}” has {', '.join(found)}.")
    return lines


def _column(told: JSON) -> dict[str, Any]:
    return {
        "name": told["name"],
        "type": told.get("description") or told.get("type") or NOTHING,
        "column_set": told.get("column_set") or NOTHING,
    }


# Records ------------------------------------------------------------------------------------------


def cells(names: Iterable[str], row: JSON, url: str) -> list[dict[str, Any]]:
    """One record of a preview.

    Args:
        names: The columns that are shown.
        row: ``"row"``, its number, with ``"values"`` or what is wrong with it, ``"error"``.
        url: Where the REST interface has the dataset's records.
    """
    if "values" not in row:
        error = {"kind": "error", "text": str(row.get("error") or "It cannot be read.")}
        return [{"name": name, **error} for name in names][:1]
    shown = []
    for name in names:
        place = f"{url}/{row['row']}/{quote(name, safe='')}"
        shown.append({"name": name, **_cell(row["values"].get(name), place)})
    return shown


def _cell(value: Any, place: str) -> dict[str, Any]:
    if value is None:
        return {"kind": "none"}
    if isinstance(value, bool):
        return {"kind": "number", "text": str(value).lower()}
    if isinstance(value, int | float):
        return {"kind": "number", "text": str(value)}
    if isinstance(value, Mapping):
        return _told(value, place)
    return {"kind": "text", "text": text_of(value), "about": ""}


def _told(value: JSON, place: str) -> dict[str, Any]:
    """A value that is told instead of shown: what it is, and how large."""
    kind = value.get("kind")
    if kind in ("image", "audio", "video", "bytes"):
        return {
            "kind": kind,
            "url": place,
            "mime": value.get("mime"),
            "nbytes": value.get("nbytes"),
        }
    if kind == "array":
        shape = " \N{MULTIPLICATION SIGN} ".join(map(str, value.get("shape") or ())) or "scalar"
        head = ", ".join(text_of(one) for one in map(_bare, value.get("head") or ()))
        return {"kind": "array", "text": head, "about": f"{value.get('dtype')}, {shape}"}
    if kind in ("text", "json", "number"):
        length = value.get("length")
        text = str(value.get("text"))
        about = f"{length:,} characters" if length and length > len(text) else ""
        return {"kind": "number" if kind == "number" else "text", "text": text, "about": about}
    return {"kind": "text", "text": text_of(value), "about": ""}


def _bare(value: Any) -> Any:
    return value.get("text") if isinstance(value, Mapping) else value


def text_of(value: Any) -> str:
    """A value as text: strings as they are, all else as JSON, cut where it is long."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + " \N{HORIZONTAL ELLIPSIS}"


def plainly(value: Any, indent: str = "") -> str:
    """A batch that was made, as a person reads it: a line for each member.

    Example:
        >>> print(plainly({"n": [1, 2], "x": {"kind": "bytes", "nbytes": 3, "mime": "image/png"}}))
        n: [1, 2]
        x: image/png, 3 bytes
    """
    if isinstance(value, Mapping) and "kind" in value:
        if "head" in value and value["kind"] in ("list", "tuple"):
            return _cut(value)
        shown = _cell(value, "")
        if shown["kind"] in ("image", "audio", "video", "bytes"):
            return f"{shown['mime'] or 'bytes'}, {nbytes(shown['nbytes'])}"
        return ": ".join(part for part in (shown.get("about", ""), shown.get("text", "")) if part)
    if isinstance(value, Mapping):
        lines = (f"{indent}{key}: {_inside(one, indent)}" for key, one in value.items())
        return "\n".join(lines)
    if isinstance(value, list) and any(isinstance(one, Mapping) for one in value):
        return "\n".join(f"{indent}- {_inside(one, indent).lstrip()}" for one in value)
    return text_of(value)


def _cut(value: JSON) -> str:
    """A list of which only the beginning is told."""
    head = ", ".join(plainly(one) for one in value["head"])
    return f"{value['kind']} of {value.get('length')}: {head}, \N{HORIZONTAL ELLIPSIS}"


def _inside(value: Any, indent: str) -> str:
    nested = isinstance(value, Mapping) and "kind" not in value
    nested = nested or (isinstance(value, list) and any(isinstance(one, Mapping) for one in value))
    return "\n" + plainly(value, indent + "  ") if nested else plainly(value)


def paging(offset: int, limit: int, total: int) -> dict[str, int | None]:
    """Where the links of a pager lead; None: nowhere.

    Example:
        >>> here = paging(25, 25, 60)
        >>> here["previous"], here["next"], here["last"], here["to"]
        (0, 50, 50, 50)
    """
    last = max(0, (total - 1) // limit * limit) if total else 0
    return {
        "offset": offset,
        "limit": limit,
        "total": total,
        "from": min(offset + 1, total),
        "to": min(offset + limit, total),
        "first": 0 if offset > 0 else None,
        "previous": max(0, offset - limit) if offset > 0 else None,
        "next": offset + limit if offset + limit < total else None,
        "last": last if offset + limit < total else None,
    }


# Iterations ---------------------------------------------------------------------------------------


def iteration(told: JSON) -> dict[str, Any]:
    """An iteration for the list, and for its own page.

    Args:
        told: What is stored of it, and its `IterationStatus` as ``"progress"``.
    """
    progress = {"total": told.get("total"), **(told.get("progress") or {})}
    seen = _progress(progress)
    label = told.get("name") or told["id"]
    return {
        "id": told["id"],
        "label": label,
        "url": f"/iterations/{quote(told['id'], safe='')}",
        "dataset": told["dataset"],
        "dataset_url": f"/datasets/{quote(told['dataset'], safe='')}",
        "created_at": told.get("created_at"),
        "state": told.get("status"),
        "error": told.get("error") or progress.get("error"),
        "facts": facts(told.get("spec") or {}, leave_out=(None, [], False)),
        "completed": progress.get("completed"),
        "rate": progress.get("rate"),
        "total": seen["total"],
        "done": seen["done"],
        "sentence": seen["sentence"],
        "progress": seen,
    }


def _progress(told: JSON) -> dict[str, Any]:
    batches = told.get("batches") or {}
    total, done = batches.get("expected", told.get("total")), batches.get("completed") or 0
    ranks = told.get("in_progress") or {}
    cursors = [_cursor(one) for one in told.get("cursors") or ()]
    return {
        "total": total,
        "done": min(done, total) if total else done,
        "sentence": _sentence(told, total, done),
        "tiles": _tiles(told, sum(ranks.values())),
        "doctor": told.get("doctor") or "",
        "stages": [_stage(one) for one in told.get("stages") or ()],
        "ranks": [{"name": rank, "samples": n} for rank, n in sorted(ranks.items(), key=_by_rank)],
        "most_in_progress": max(ranks.values(), default=0) or 1,
        "clients": [_client(one) for one in told.get("clients") or ()],
        "errors": list(told.get("errors") or ())[-20:],
        "cursors": cursors,
        "cursor_labels": [label for label, _ in cursors[0]["facts"]] if cursors else [],
    }


def _by_rank(item: tuple[str, int]) -> tuple[int, str]:
    return (int(item[0]), "") if item[0].isdecimal() else (1 << 30, item[0])


def _sentence(told: JSON, total: int | None, done: int) -> str:
    samples = f"{told.get('completed') or 0:,} samples completed"
    if not total:
        return f"{samples}, in {done:,} batches."
    return f"{done:,} of {total:,} batches ({100 * done / total:.0f} %), {samples}."


def _tiles(told: JSON, in_progress: int) -> list[dict[str, Any]]:
    now = told.get("rate") or 0.0
    shown = [
        {"label": label, "text": count(told.get(key)), "unit": "", "id": f"now-{key}"}
        for key, label in (("current", "Current batch"), ("completed", "Completed"))
    ]
    shown.append(
        {"label": "In progress", "text": count(in_progress), "unit": "", "id": "now-in-progress"}
    )
    shown += [
        {"label": label, "text": count(told.get(key)), "unit": "", "id": f"now-{key}"}
        for key, label in (
            ("returned", "Given back"),
            ("filtered", "Filtered"),
            ("failed", "Failed"),
        )
    ]
    shown.append({"label": "Samples a second", "text": rate(now), "unit": "", "id": "rate-now"})
    return [{**tile, "value": now if tile["id"] == "rate-now" else ""} for tile in shown]


def _stage(told: JSON) -> dict[str, Any]:
    busy, wait_in, wait_out = (
        float(told.get(key) or 0.0) for key in ("busy", "waiting_in", "waiting_out")
    )
    parts = shares({"busy": busy, "wait-in": wait_in, "wait-out": wait_out})
    text = f"{busy:.0%} busy, {wait_in:.0%} input, {wait_out:.0%} room"
    return {"name": told.get("name") or NOTHING, "parts": parts, "text": text}


def _client(told: JSON) -> dict[str, Any]:
    seen = told.get("last_seen_s")
    return {
        "name": told.get("client") or told.get("session") or NOTHING,
        "rank": told.get("rank"),
        "in_progress": told.get("in_progress"),
        "last_seen": NOTHING if seen is None else f"{seen:.0f} s ago",
    }


def _cursor(told: JSON) -> dict[str, Any]:
    numbers = [
        (key.replace("_", " "), _plain(value)) for key, value in told.items() if key != "name"
    ]
    return {"name": told.get("name") or NOTHING, "facts": numbers}


def tried(told: JSON) -> dict[str, Any]:
    """The first batches of an iteration that was tried."""
    batches = [_batch(one) for one in told.get("batches") or ()]
    about = f"{len(batches)} {'batch' if len(batches) == 1 else 'batches'}"
    about += ", and no more" if told.get("ended") else ""
    error = told.get("error")
    return {
        "about": about,
        "batches": batches,
        "error": text_of(error) if error else "",
    }


def _batch(told: JSON) -> dict[str, Any]:
    counts = [("samples", told.get("samples")), ("filtered", told.get("filtered"))]
    counts.append(("failed", told.get("failed")))
    about = ", ".join(f"{number:,} {name}" for name, number in counts if number)
    category = told.get("category")
    return {
        "about": about + (f", category {text_of(category)}" if category is not None else ""),
        "failures": [text_of(one) for one in told.get("failures") or ()],
        "text": plainly(told.get("value")),
    }


# Tasks --------------------------------------------------------------------------------------------


def task(told: JSON) -> dict[str, Any]:
    """A background task."""
    progress = told.get("progress") or {}
    params = told.get("params") or {}
    done, total = progress.get("done") or 0, progress.get("total")
    message = progress.get("message") or ""
    sentence = f"{done:,} of {total:,} done ({100 * done / total:.0f} %). " if total else ""
    return {
        "id": told["id"],
        "url": f"/tasks/{quote(told['id'], safe='')}",
        "kind": told["kind"],
        "about": " / ".join(
            str(params[key]) for key in ("dataset", "column_set", "name") if params.get(key)
        ),
        "status": told["status"],
        "live": told["status"] in _LIVE_TASKS,
        "done": min(done, total) if total else done,
        "total": total,
        "message": message,
        "sentence": (sentence + message).strip() or f"It is {told['status']}.",
        "error": told.get("error"),
        "params": facts(params, leave_out=(None,)),
        "result": facts(told.get("result") or {}, leave_out=(None,)),
        "created_at": told.get("created_at"),
        "updated_at": told.get("updated_at"),
    }


def facts(told: JSON, *, leave_out: tuple[Any, ...]) -> list[tuple[str, str]]:
    """JSON as lines of a list: names in words, values as text.

    Example:
        >>> facts({"batch_size": 32, "columns": None}, leave_out=(None,))
        [('batch size', '32')]
    """
    return [
        (key.replace("_", " "), _plain(value))
        for key, value in told.items()
        if not any(value is other or (value == [] == other) for other in leave_out)
    ]


def _plain(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, list) and value and all(isinstance(one, str) for one in value):
        return ", ".join(value)
    if isinstance(value, list) and value and all(_is_ref(one) for one in value):
        return ", ".join(_called(one) for one in value)
    return _called(value) if _is_ref(value) else text_of(value)


def _is_ref(value: Any) -> bool:
    return isinstance(value, Mapping) and set(value) == {"name", "params"}


def _called(ref: JSON) -> str:
    params = ", ".join(f"{key}={json.dumps(value)}" for key, value in ref["params"].items())
    return f"{ref['name']}({params})"
