"""What of a cluster a stage asks for.

Responsible for: `Resources`, amounts by name, as options keep what users give
(``{"CPU": 1, "GPU": 0.5}``), and how those of stages that share a worker become one.

Rules:
- they say where a worker may be, never what it makes; they count where workers are actors of Ray,
  and nowhere else;
- of stages that share a worker, each gets what it asks for: the most that any of them wants.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from splitpipe.errors import GraphError

__all__ = ["DEFAULT", "Resources", "joined", "resources_of"]

Resources: TypeAlias = tuple[tuple[str, float], ...]
"""Amounts by name, in the order of the names."""

DEFAULT: Resources = (("CPU", 1.0),)
"""What a worker has for which nobody says anything."""


def resources_of(value: object) -> Resources | None:
    """Return what a user asks for.

    Raises:
        GraphError: it is no mapping of names to amounts.

    Example:
        >>> resources_of({"GPU": 0.5, "CPU": 1})
        (('CPU', 1.0), ('GPU', 0.5))
    """
    if value is None or isinstance(value, tuple):
        return value
    if not isinstance(value, Mapping):
        raise GraphError(
            f"resources must be a mapping of names to amounts, {{'CPU': 1}} say, not {value!r}"
        )
    for name, amount in value.items():
        number = isinstance(amount, (int, float)) and not isinstance(amount, bool)
        if not isinstance(name, str) or not number or not 0 <= amount < math.inf:
            raise GraphError(f"resources: {name!r} cannot be {amount!r}; give an amount from 0 on")
    return tuple(sorted((name, float(amount)) for name, amount in value.items()))


def joined(asked: Iterable[Resources | None], default: Resources | None = None) -> Resources:
    """Return what a worker needs that runs stages which ask for `asked`.

    Example:
        >>> joined([(("CPU", 2.0),), None, (("CPU", 1.0), ("GPU", 1.0))])
        (('CPU', 2.0), ('GPU', 1.0))
    """
    most: dict[str, float] = {}
    for one in asked:
        for name, amount in one or ():
            most[name] = max(amount, most.get(name, 0.0))
    return tuple(sorted(most.items())) or default or DEFAULT
