"""The program that iterates as described.

Responsible for: `snippet`, Python code for a client.

Rules:
- what is as it would be anyhow is not said;
- it runs as it is: the rank is what launchers of trainings say it is;
- no token is ever written into it.
"""

from __future__ import annotations

from typing import Any

from splitpipe.server.iterations.description import IterationSpec, ModuleRef

__all__ = ["snippet"]

_RANK = 'int(os.environ.get("RANK", "0"))'


def snippet(
    spec: IterationSpec, *, url: str = "http://127.0.0.1:8000", name: str | None = None
) -> str:
    """Return the program.

    Args:
        spec: what is iterated.
        url: of the service.
        name: the id of the iteration, where it has one that was chosen.

    Example:
        >>> print(snippet(IterationSpec(dataset="news", batch_size=32, shuffle="global")))
        import splitpipe as sp
        <BLANKLINE>
        # Where the service asks for one: token=...
        client = sp.connect("http://127.0.0.1:8000")
        with client.iterate(
            "news",
            shuffle="global",
            batch_size=32,
        ) as loader:
            for batch in loader:
                ...
    """
    plain = IterationSpec(dataset=spec.dataset)
    given = []
    for field in type(spec).model_fields:
        value = getattr(spec, field)
        if field != "dataset" and value != getattr(plain, field):
            given.append(f"    {field}={_text(value)},")
    if spec.world_size > 1:
        given.append(f"    rank={_RANK},  # as torchrun says it")
    if name is not None:
        given.append(f"    id={_text(name)},")
    lines = [
        *(["import os", ""] if spec.world_size > 1 else []),
        "import splitpipe as sp",
        "",
        "# Where the service asks for one: token=...",
        f"client = sp.connect({_text(url)})",
        "with client.iterate(",
        f"    {_text(spec.dataset)},",
        *given,
        ") as loader:",
        "    for batch in loader:",
        "        ...",
    ]
    return "\n".join(lines) + "\n"


def _text(value: Any) -> str:
    if isinstance(value, ModuleRef):
        if not value.params:
            return _text(value.name)
        return f"({_text(value.name)}, {_text(value.params)})"
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_text(key)}: {_text(one)}' for key, one in value.items())}}}"
    if isinstance(value, str) and '"' not in value:
        return f'"{repr(value)[1:-1]}"'
    return repr(value)
