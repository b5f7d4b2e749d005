"""Parameters of modules as fields of a form.

Responsible for: which field shows a parameter, and the typed value of what was written into it.

Rules:
- a type is what the listing of modules calls it; what no simple field can hold is written as JSON;
- an empty field that is not required leaves the parameter out, so that its default counts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["MISSING", "Known", "Parameter", "shown", "typed"]

MISSING = object()
"""Stands for a parameter that is left to its default."""

_SIMPLE = {"int": "int", "float": "float", "str": "text", "bool": "bool"}


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a module.

    Args:
        name: Its name.
        type: As Python writes it, such as ``"int"`` or ``"list[str] | None"``.
        default: What counts where nothing is given.
        required: Whether something has to be given.
        choices: The values that are allowed; None: no such list.
        doc: A sentence about it.
    """

    name: str
    type: str = "str"
    default: Any = None
    required: bool = False
    choices: tuple[Any, ...] | None = None
    doc: str = ""

    @property
    def input(self) -> str:
        """The kind of field: ``int``, ``float``, ``text``, ``bool``, ``choice`` or ``json``.

        Example:
            >>> Parameter("least", "int").input, Parameter("names", "list[str]").input
            ('int', 'json')
        """
        if self.choices:
            return "choice"
        bare = self.type.replace(" ", "").removesuffix("|None")
        kind = _SIMPLE.get(bare, "json")
        # A box is ticked or not: it cannot say that a parameter is left out.
        undecided = kind == "bool" and (bare != self.type or not isinstance(self.default, bool))
        return "json" if undecided and not self.required else kind

    @property
    def default_text(self) -> str:
        """The default as Python would write it."""
        return repr(self.default)


@dataclass(frozen=True, slots=True)
class Known:
    """A module that the server has.

    Args:
        name: What it is registered as.
        kind: ``"filter"``, ``"categorizer"``, ``"collater"`` or ``"preprocessor"``.
        doc: What it says of itself.
        parameters: In their order.
        file: Where it comes from, below the modules folder.
    """

    name: str
    kind: str
    doc: str = ""
    parameters: tuple[Parameter, ...] = field(default=())
    file: str = ""

    @property
    def line(self) -> str:
        """The first line of what it says of itself."""
        return self.doc.strip().split("\n")[0].strip()

    @property
    def paragraphs(self) -> list[str]:
        """What it says of itself, without its line breaks."""
        parts = self.doc.strip().split("\n\n")
        return [" ".join(part.split()) for part in parts if part.strip()]


def typed(parameter: Parameter, text: str) -> Any:
    """The value that was written into a field, or `MISSING`.

    Raises:
        ValueError: it is no such value.

    Example:
        >>> typed(Parameter("least", "int"), " 12 "), typed(Parameter("names", "list"), '["a"]')
        (12, ['a'])
    """
    kind = parameter.input
    if kind == "bool":
        return text == "on"
    if not text.strip():
        if parameter.required and kind != "text":
            raise ValueError("has to be given")
        return text if parameter.required else MISSING
    if kind == "choice":
        return _chosen(parameter, text)
    if kind == "text":
        return text
    return _parsed(kind, text.strip())


def shown(parameter: Parameter, params: Mapping[str, Any]) -> Any:
    """What a field holds for a value that is given, or for none.

    Example:
        >>> shown(Parameter("least", "int"), {"least": 3}), shown(Parameter("least", "int"), {})
        ('3', '')
    """
    kind = parameter.input
    if kind == "bool":
        return bool(params.get(parameter.name, parameter.default))
    if parameter.name not in params:
        return ""
    value = params[parameter.name]
    if kind == "text" and isinstance(value, str):
        return value
    return str(value) if kind == "choice" else json.dumps(value, ensure_ascii=False)


def _chosen(parameter: Parameter, text: str) -> Any:
    for choice in parameter.choices or ():
        if str(choice) == text:
            return choice
    raise ValueError(f"is one of {', '.join(map(str, parameter.choices or ()))}")


def _parsed(kind: str, text: str) -> Any:
    try:
        if kind == "int":
            return int(text)
        if kind == "float":
            return float(text)
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        wanted = {"int": "a whole number", "float": "a number"}.get(kind, "a value written as JSON")
        raise ValueError(f"is {wanted}") from error
