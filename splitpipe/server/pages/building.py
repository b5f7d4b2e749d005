"""The form that builds an iteration.

Responsible for: a form's fields from a description and back, the modules that were added to it, and
which field is to blame for what is wrong.

Rules:
- what was typed stays in the form, right or wrong;
- what a description must be is known to `IterationSpec` alone: here its errors find their field.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from splitpipe.server.iterations.description import IterationSpec
from splitpipe.server.pages.forms import Form
from splitpipe.server.pages.parameters import MISSING, Known, Parameter, shown, typed

__all__ = [
    "SLOTS",
    "Kinds",
    "Rows",
    "act",
    "by_kind",
    "fields_of",
    "refs",
    "rows_of",
    "spec_of",
    "told",
]

SLOTS = {
    "filters": "filter",
    "categorizer": "categorizer",
    "collater": "collater",
    "preprocessors": "preprocessor",
}
"""Where modules go in a description, with the kind that goes there."""

SINGLE = frozenset({"categorizer", "collater"})

Rows = dict[str, list[tuple[str, dict[str, str]]]]
"""Modules in their slots: the name, and what stands in the fields of its parameters."""

Kinds = Mapping[str, list[Known]]
"""The modules of a server by what they do."""

_INTEGERS = (
    "batch_size",
    "epochs",
    "max_retry_count",
    "seed",
    "skip_budget",
    "waiting_nbytes",
    "window",
    "workers",
    "world_size",
)
_TEXTS = ("dataset", "ends", "mode", "on_error", "shuffle", "where")
_BOXES = ("decode", "drop_last")
_MORE = frozenset({"ends", "lease_s", "max_retry_count", "mode", "on_error", "replication_groups"})
_MORE |= {"skip_budget", "waiting_nbytes", "workers", "world_size"}
_FIELD = re.compile(r"^(\w+)\.(\d{1,4})\.(name|params\.(.+))$")


def by_kind(modules: Iterable[Known]) -> dict[str, list[Known]]:
    """Modules by what they do; every kind has its list."""
    kinds: dict[str, list[Known]] = {kind: [] for kind in SLOTS.values()}
    for module in modules:
        kinds.setdefault(module.kind, []).append(module)
    return kinds


# From a form --------------------------------------------------------------------------------------


def rows_of(form: Form) -> Rows:
    """The modules of a form, in their order.

    Example:
        >>> rows_of(Form([("filters.1.name", "b"), ("filters.0.name", "a")]))["filters"]
        [('a', {}), ('b', {})]
    """
    names: dict[str, dict[int, str]] = defaultdict(dict)
    params: dict[tuple[str, int], dict[str, str]] = defaultdict(dict)
    for key, value in form.pairs:
        found = _FIELD.match(key)
        if found and found[1] in SLOTS:
            at = int(found[2])
            if found[3] == "name":
                names[found[1]][at] = value
            else:
                params[found[1], at][found[4]] = value
    return {
        slot: [(name, params[slot, at]) for at, name in sorted(names[slot].items())]
        for slot in SLOTS
    }


def act(action: str, form: Form, rows: Rows, modules: Kinds) -> None:
    """Do what a button of the form says: add, remove or move a module."""
    verb, _, where = action.partition(":")
    slot, _, number = where.partition(".")
    if slot not in SLOTS:
        return
    chosen = rows[slot]
    if verb == "add":
        found = [m for m in modules[SLOTS[slot]] if m.name == form[f"{slot}.new"]]
        if found and not (slot in SINGLE and chosen):
            chosen.append((found[0].name, _untouched(found[0])))
        return
    at = int(number) if number.isdecimal() else len(chosen)
    if at >= len(chosen):
        return
    if verb == "remove":
        del chosen[at]
    other = at + {"up": -1, "down": 1}.get(verb, 0)
    if verb in ("up", "down") and 0 <= other < len(chosen):
        chosen[at], chosen[other] = chosen[other], chosen[at]


def _untouched(module: Known) -> dict[str, str]:
    ticked = (p for p in module.parameters if p.input == "bool" and p.default is True)
    return {parameter.name: "on" for parameter in ticked}


def spec_of(form: Form, rows: Rows, modules: Kinds) -> tuple[IterationSpec | None, dict[str, str]]:
    """The description that a form asks for.

    Returns:
        The description, or None; what is wrong by field; what no field is to blame for is under the
        empty name.
    """
    wrong: dict[str, str] = {}
    raw: dict[str, Any] = {name: form[name] for name in _TEXTS if form[name]}
    raw |= {name: form[name] == "on" for name in _BOXES}
    for name in _INTEGERS:
        _put(raw, wrong, name, form[name], int, "is a whole number")
    _put(raw, wrong, "lease_s", form["lease_s"], float, "is a number of seconds")
    _put(raw, wrong, "replication_groups", form["replication_groups"], _groups, "such as 0,1; 2,3")
    if form.all("columns"):
        raw["columns"] = form.all("columns")
    for slot in SLOTS:
        listed = refs(slot, rows[slot], modules[SLOTS[slot]], wrong)
        raw[slot] = (listed[0] if listed else None) if slot in SINGLE else listed
    if wrong:
        return None, wrong
    try:
        return IterationSpec.model_validate(raw), {}
    except ValidationError as error:
        return None, _blame(error)


def refs(
    slot: str,
    rows: list[tuple[str, dict[str, str]]],
    modules: Iterable[Known],
    wrong: dict[str, str],
) -> list[dict[str, Any]]:
    """Modules with typed parameters; what is wrong is noted by field."""
    known = {module.name: module for module in modules}
    listed = []
    for at, (name, texts) in enumerate(rows):
        params: dict[str, Any] = {}
        for parameter in known[name].parameters if name in known else ():
            key = f"{slot}.{at}.params.{parameter.name}"
            try:
                value = typed(parameter, texts.get(parameter.name, ""))
            except ValueError as error:
                wrong[key] = f"{parameter.name} {error}"
                continue
            if value is not MISSING:
                params[parameter.name] = value
        if name not in known:
            wrong[f"{slot}.{at}"] = "Reload the modules, or remove it here."
        listed.append({"name": name, "params": params})
    return listed


def _put(
    raw: dict[str, Any], wrong: dict[str, str], name: str, text: str, read: Any, wanted: str
) -> None:
    if not text:
        return
    try:
        raw[name] = read(text)
    except ValueError:
        wrong[name] = f"This {wanted}." if wanted.startswith("is") else f"Write it {wanted}."


def _groups(text: str) -> list[list[int]]:
    return [[int(rank) for rank in group.split(",")] for group in text.split(";") if group.strip()]


def _blame(error: ValidationError) -> dict[str, str]:
    """Errors of a description by the field of the form that shows them."""
    wrong: dict[str, str] = {}
    for one in error.errors(include_url=False, include_context=False, include_input=False):
        message = one["msg"].removeprefix("Value error, ")
        place = [str(part) for part in one["loc"]]
        field = ".".join(place[:2]) if len(place) > 1 and place[0] in SLOTS else "".join(place[:1])
        wrong.setdefault(field, message[:1].upper() + message[1:] + ".")
    return wrong


# Into a form --------------------------------------------------------------------------------------


def fields_of(form: Form, rows: Rows, modules: Kinds) -> dict[str, Any]:
    """What the fields of the form show: what was typed."""
    names = (*_TEXTS, *_INTEGERS, "lease_s", "replication_groups", "id", "count")
    fields: dict[str, Any] = {name: form.raw(name) for name in names}
    fields["count"] = form["count"] or "3"
    fields |= {name: form[name] == "on" for name in _BOXES}
    fields["columns"] = form.all("columns")
    fields["modules"] = {
        slot: [_row(name, texts, modules[SLOTS[slot]]) for name, texts in rows[slot]]
        for slot in SLOTS
    }
    return fields


def told(spec: IterationSpec) -> Form:
    """The form that asks for a description."""
    values = spec.model_dump(mode="json")
    pairs = [(name, "" if values[name] is None else str(values[name])) for name in _TEXTS]
    pairs += [(name, "" if values[name] is None else str(values[name])) for name in _INTEGERS]
    pairs += [(name, "on") for name in _BOXES if values[name]]
    pairs += [("columns", name) for name in values["columns"] or ()]
    pairs.append(("lease_s", f"{values['lease_s']:g}"))
    groups = values["replication_groups"] or ()
    pairs.append(("replication_groups", "; ".join(",".join(map(str, group)) for group in groups)))
    return Form(pairs)


def rows_told(spec: IterationSpec, modules: Kinds) -> Rows:
    """The modules of a description, as a form has them."""
    rows: Rows = {}
    for slot, kind in SLOTS.items():
        given = getattr(spec, slot)
        listed = [given] if slot in SINGLE and given else given or []
        known = {module.name: module for module in modules[kind]}
        rows[slot] = [(ref.name, _texts(known.get(ref.name), ref.params)) for ref in listed]
    return rows


def more_is_told(fields: Mapping[str, Any], wrong: Mapping[str, str]) -> bool:
    """Whether what is folded away holds something that should be seen."""
    usual = IterationSpec.model_validate({"dataset": "x"})
    if _MORE & set(wrong):
        return True
    for name in _MORE:
        default = getattr(usual, name)
        text = str(fields[name])
        if text not in ("", str(default), f"{default:g}" if isinstance(default, float) else ""):
            return True
    return False


def _texts(module: Known | None, params: Mapping[str, Any]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for parameter in module.parameters if module else ():
        value = shown(parameter, params)
        if parameter.input == "bool":
            texts |= {parameter.name: "on"} if value else {}
        elif value != "":
            texts[parameter.name] = value
    return texts


def _row(name: str, texts: Mapping[str, str], modules: Iterable[Known]) -> dict[str, Any]:
    found = [module for module in modules if module.name == name]
    return {
        "name": name,
        "doc": found[0].line if found else "",
        "missing": not found,
        "parameters": [_field(p, texts) for p in found[0].parameters] if found else [],
    }


def _field(parameter: Parameter, texts: Mapping[str, str]) -> dict[str, Any]:
    kind = parameter.input
    text = texts.get(parameter.name, "")
    return {
        "name": parameter.name,
        "input": kind,
        "value": text == "on" if kind == "bool" else text,
        "required": parameter.required,
        "choices": parameter.choices or (),
        "hint": parameter.doc or (parameter.type if kind == "json" else ""),
        "placeholder": "" if parameter.required else parameter.default_text,
    }


class Wrong(dict[str, str]):
    """What is wrong by field; a field that is right has nothing said about it."""

    def __missing__(self, key: str) -> str:
        return ""
