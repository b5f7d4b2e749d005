"""The program that runs the fragments of one page, one after the other, as a reader would.

    python fragments.py PAGE [PRELUDE]

A prelude makes what the page takes for granted: the dataset, a `step`, a server. It may define
`translated(code)`, which puts real addresses in the place of those that the page makes up, and
`left_out`, a mapping from the first line of a block to the reason why nobody can run it here.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.docs.reading import ROOT, blocks_of


def main(page: Path, prelude: Path | None) -> None:
    names: dict[str, Any] = {"__name__": "__fragments__", "BLOCKS": []}
    fragments = [block for block in blocks_of(page) if not block.program]
    names["BLOCKS"] = [block.code for block in fragments]
    if prelude is not None:
        exec(compile(prelude.read_text(encoding="utf-8"), str(prelude), "exec"), names)
    left_out = dict(names.get("left_out", {}))
    for block in fragments:
        if left_out.pop(block.code.partition("\n")[0], None) is None:
            _run(names.get("translated", str)(block.code), block.line, page, names)
    assert not left_out, f"these blocks are on the page no more: {sorted(left_out)}"
    names.get("done", int)()
    print("all fragments ran")


def _run(code: str, line: int, page: Path, names: dict[str, Any]) -> None:
    """Run a block under the page's own name and line, so that a traceback leads there."""
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    made = compile("\n" * (line - 1) + code, str(page.relative_to(ROOT)), "exec", flags=flags)
    if made.co_flags & inspect.CO_COROUTINE:
        asyncio.run(eval(made, names))
    else:
        exec(made, names)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
