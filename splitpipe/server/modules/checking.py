"""Values for parameters, looked at without the module.

Responsible for: `check_params`, which refuses what a module will not take, from its description
alone: so whoever asks for an iteration learns of it at once, and no code of a module is run.

Rules:
- what this cannot judge is left to the module's own process, which judges everything again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from operator import ge, gt, le, lt
from typing import Any

from splitpipe.errors import InvalidRequest

__all__ = ["check_params"]

_TYPES: dict[str, tuple[type, ...]] = {
    "integer": (int,),
    "number": (int, float),
    "string": (str,),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}
_BOUNDS: tuple[tuple[str, str, Callable[[Any, Any], bool]], ...] = (
    ("minimum", "at least", ge),
    ("maximum", "at most", le),
    ("exclusiveMinimum", "more than", gt),
    ("exclusiveMaximum", "less than", lt),
)
_WORDS = {
    "integer": "a whole number",
    "number": "a number",
    "string": "a text",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}


def check_params(
    parameters: Sequence[Mapping[str, Any]], params: Mapping[str, Any], what: str
) -> None:
    """Refuse values that do not fit.

    Args:
        parameters: descriptions, of `parameters_of`.
        params: values of JSON, by name.
        what: the module, for messages.

    Raises:
        InvalidRequest: one is missing, unknown, of another type, or out of its bounds.

    Example:
        >>> least = {"name": "least", "required": False, "schema": {"type": "integer"}}
        >>> check_params([least], {"least": "10"}, "filter 'long_enough'")
        Traceback (most recent call last):
            ...
        splitpipe.errors.InvalidRequest: filter 'long_enough': parameter 'least' must be a whole \
number, not '10'
    """
    known = {parameter["name"]: parameter for parameter in parameters}
    for name in params:
        if name not in known:
            names = ", ".join(known) or "none"
            raise InvalidRequest(f"{what} has no parameter {name!r}; it has: {names}")
    for name, parameter in known.items():
        if name in params:
            schema = parameter["schema"]
            wrong = _wrong(schema, params[name], schema.get("$defs", {}))
            if wrong is not None:
                raise InvalidRequest(f"{what}: parameter {name!r} {wrong}")
        elif parameter["required"]:
            raise InvalidRequest(f"{what} needs its parameter {name!r}")


def _wrong(schema: Mapping[str, Any], value: Any, defined: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a value, as the rest of a sentence."""
    if "$ref" in schema:
        schema = defined.get(str(schema["$ref"]).rsplit("/", 1)[-1], {})
    if "anyOf" in schema:
        found = [_wrong(one, value, defined) for one in schema["anyOf"]]
        return None if None in found else _nearest(found)
    choices = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if choices is not None:
        same = any(type(one) is type(value) and one == value for one in choices)
        said = ", ".join(map(repr, choices))
        return None if same else f"must be one of {said}, not {value!r:.200}"
    kind = schema.get("type")
    if kind in _TYPES and not _fits(kind, value):
        return f"must be {_WORDS[kind]}, not {value!r:.200}"
    return _out_of_bounds(schema, value) or _inside(schema, value, defined)


def _fits(kind: str, value: Any) -> bool:
    if isinstance(value, bool) and kind != "boolean":
        return False
    return isinstance(value, _TYPES[kind])


def _nearest(found: Sequence[str | None]) -> str | None:
    said = list(dict.fromkeys(one for one in found if one))
    return said[0] if len(said) == 1 else " or ".join(one.rsplit(", not", 1)[0] for one in said)


def _out_of_bounds(schema: Mapping[str, Any], value: Any) -> str | None:
    if isinstance(value, int | float):
        for name, words, holds in _BOUNDS:
            if name in schema and not holds(value, schema[name]):
                return f"must be {words} {schema[name]}, not {value!r}"
    lengths = (("minLength", "maxLength"), ("minItems", "maxItems"))
    if isinstance(value, str | list):
        for least, most in lengths:
            if len(value) < schema.get(least, 0):
                return f"must have a length of at least {schema[least]}, not {len(value)}"
            if most in schema and len(value) > schema[most]:
                return f"must have a length of at most {schema[most]}, not {len(value)}"
    pattern = schema.get("pattern")
    if isinstance(value, str) and pattern is not None and not _matches(pattern, value):
        return f"must match {pattern!r}, not {value!r:.200}"
    return None


def _matches(pattern: str, value: str) -> bool:
    try:
        return re.search(pattern, value) is not None
    except re.error:
        return True  # in another dialect, which the module's own process knows


def _inside(schema: Mapping[str, Any], value: Any, defined: Mapping[str, Any]) -> str | None:
    items: list[tuple[str, Any, Any]] = []
    if isinstance(value, list):
        first = schema.get("prefixItems", ())
        rest = schema.get("items", {})
        kinds = [*first, *[rest] * (len(value) - len(first))]
        pairs = enumerate(zip(kinds, value, strict=False))
        items = [(f"[{at}]", kind, one) for at, (kind, one) in pairs]
    elif isinstance(value, dict):
        for name in schema.get("required", ()):
            if name not in value:
                return f"must have {name!r}"
        named = schema.get("properties", {})
        others = schema.get("additionalProperties", {})
        items = [(f"[{name!r}]", named.get(name, others), one) for name, one in value.items()]
    for at, kind, one in items:
        wrong = _wrong(kind, one, defined) if isinstance(kind, dict) else None
        if wrong is not None:
            return f"{at} {wrong}" if wrong.startswith("must") else f"{at}{wrong}"
    return None
