"""How modules of the server are named in a call.

Responsible for: `reference`: a filter, categorizer, collater or preprocessor as the server wants
it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from splitpipe.errors import InvalidRequest

__all__ = ["Module", "reference", "references"]

Module: TypeAlias = str | tuple[str, Mapping[str, Any]] | Mapping[str, Any]
"""``"name"``, ``("name", {"parameter": value})``, or ``{"name": ..., "params": {...}}``."""


def reference(module: Module) -> dict[str, Any]:
    """Return a module as the server wants it.

    Example:
        >>> reference("longer"), reference(("longer", {"than": 3}))
        ({'name': 'longer', 'params': {}}, {'name': 'longer', 'params': {'than': 3}})
    """
    if isinstance(module, str):
        return {"name": module, "params": {}}
    if isinstance(module, Mapping) and set(module) <= {"name", "params"} and "name" in module:
        return {"name": module["name"], "params": dict(module.get("params") or {})}
    if isinstance(module, tuple) and len(module) == 2:
        name, params = module
        return {"name": name, "params": dict(params)}
    raise InvalidRequest(
        f"{module!r} names no module: 'name', ('name', {{parameters}}), or "
        "{'name': ..., 'params': {...}}. Functions live in the server's modules folder"
    )


def references(modules: Sequence[Module]) -> list[dict[str, Any]]:
    """Return several."""
    if isinstance(modules, str | Mapping):
        raise InvalidRequest(f"a list of modules, not {modules!r} alone")
    return [reference(module) for module in modules]
