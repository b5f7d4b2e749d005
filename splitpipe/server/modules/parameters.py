"""What a module takes: parameters, their types and their values.

Responsible for: `parameters_of`, which describes them in values of JSON, and `arguments_of`, which
gives a module the values that somebody wrote.

Rules:
- a parameter's type is its annotation, or that of its default; whatever pydantic understands can be
  used, ``Annotated[int, Field(ge=1)]`` as well;
- a value of another type is refused, never converted;
- what a module is called with comes first, and is no parameter.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple, get_type_hints

from pydantic import TypeAdapter, ValidationError

from splitpipe.errors import InvalidRequest

__all__ = ["arguments_of", "parameters_of"]

_TYPES = {
    "integer": "int",
    "number": "float",
    "string": "str",
    "boolean": "bool",
    "array": "list",
    "object": "dict",
}


class _Parameter(NamedTuple):
    """One parameter of a module."""

    name: str
    adapter: TypeAdapter[Any]
    default: Any

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty


def parameters_of(module: Callable[..., Any]) -> list[dict[str, Any]]:
    """Return what can be said of each parameter, in values of JSON.

    Each has ``name``, ``type`` (``int``, ``float``, ``str``, ``bool``, ``choice``, ``list``,
    ``dict`` or ``json``), ``required``, ``default``, ``choices`` (or None), ``doc``, and ``schema``
    (JSON schema).

    Raises:
        TypeError: it takes something that cannot be given by name, or that JSON cannot say.

    Example:
        >>> def long_enough(sample, *, least: int = 10): ...
        >>> [(one["name"], one["type"], one["default"]) for one in parameters_of(long_enough)]
        [('least', 'int', 10)]
    """
    docs = _docs(module)
    return [_described(parameter, docs.get(parameter.name, "")) for parameter in _taken(module)]


def arguments_of(
    module: Callable[..., Any], params: Mapping[str, Any], what: str
) -> Callable[[Any], Any]:
    """Return what is called with a value: the module with its parameters.

    Args:
        module: a function, or a class.
        params: values of JSON, by name.
        what: the module, for messages.

    Raises:
        InvalidRequest: a value is missing, is of another type, or means nothing to it.
    """
    taken = {parameter.name: parameter for parameter in _taken(module)}
    for name in params:
        if name not in taken:
            known = ", ".join(taken) or "none"
            raise InvalidRequest(f"{what} has no parameter {name!r}; it has: {known}")
    values = {}
    for name, parameter in taken.items():
        if name in params:
            values[name] = _value(parameter, params[name], what)
        elif parameter.required:
            raise InvalidRequest(f"{what} needs its parameter {name!r}")
    if isinstance(module, type):
        made: Callable[[Any], Any] = module(**values)
        return made
    return partial(module, **values) if values else module


def _value(parameter: _Parameter, given: Any, what: str) -> Any:
    try:
        return parameter.adapter.validate_json(json.dumps(given), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        at = "".join(f"[{part!r}]" for part in first["loc"])
        raise InvalidRequest(
            f"{what}: parameter {parameter.name!r}{at}: {first['msg']}, not {given!r:.200}"
        ) from error


def _taken(module: Callable[..., Any]) -> Iterator[_Parameter]:
    """Yield the parameters of a module, without what it is called with."""
    is_class = isinstance(module, type)
    annotated: Any = module.__init__ if isinstance(module, type) else module  # type: ignore[misc]
    hints = get_type_hints(annotated, include_extras=True)
    signature = inspect.signature(module)
    kinds = inspect.Parameter
    for number, (name, parameter) in enumerate(signature.parameters.items()):
        if number == 0 and not is_class:
            if parameter.kind not in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD):
                raise TypeError(f"{_name(module)} must take a sample (or a batch) first")
            continue
        if parameter.kind not in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY):
            raise TypeError(
                f"{_name(module)}: {parameter} cannot be given by name; a module's parameters are "
                "ordinary keywords"
            )
        kind = hints.get(name, _suggested(parameter.default))
        try:
            adapter = TypeAdapter(kind)
        except Exception as error:  # pydantic raises several kinds
            why = f"the type of parameter {name!r} cannot be used: {error}"
            raise TypeError(f"{_name(module)}: {why}") from error
        yield _Parameter(name, adapter, parameter.default)
    if is_class or signature.parameters:
        return
    raise TypeError(f"{_name(module)} takes nothing: it must take a sample (or a batch) first")


def _described(parameter: _Parameter, doc: str) -> dict[str, Any]:
    schema = parameter.adapter.json_schema()
    choices = schema.get("enum", [schema["const"]] if "const" in schema else None)
    default = None
    if not parameter.required:
        default = parameter.adapter.dump_python(parameter.default, mode="json", warnings=False)
        json.dumps(default)
    return {
        "name": parameter.name,
        "type": "choice" if choices else _type(schema),
        "required": parameter.required,
        "default": default,
        "choices": choices,
        "doc": doc,
        "schema": schema,
    }


def _type(schema: Mapping[str, Any]) -> str:
    """Return the one word for a type; that of the other where it may be null."""
    others = [one for one in schema.get("anyOf", ()) if one.get("type") != "null"]
    if len(others) == 1:
        return _type(others[0])
    return _TYPES.get(str(schema.get("type")), "json")


def _suggested(default: Any) -> Any:
    """Return the type of a parameter without an annotation."""
    return type(default) if type(default) in (bool, int, float, str) else Any


def _docs(module: Callable[..., Any]) -> dict[str, str]:
    """Return what the docstring says of each parameter, under ``Args:`` in Google's style."""
    text = inspect.getdoc(module) or ""
    if isinstance(module, type):
        text += "\n\n" + (inspect.getdoc(vars(module).get("__init__")) or "")
    docs: dict[str, str] = {}
    for section in re.findall(r"^Args:\n((?:[ \t]+.*\n?|\n)+)", text, re.MULTILINE):
        for name, doc in re.findall(
            r"^ {4}(\w+)(?: \([^)]*\))?:[ \n]+((?:.*\n?)(?: {8}.*\n?)*)", section, re.MULTILINE
        ):
            docs[name] = " ".join(doc.split())
    return docs


def _name(module: Any) -> str:
    return str(getattr(module, "__name__", module))
