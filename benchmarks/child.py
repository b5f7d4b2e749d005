"""The process in which one (case, system) runs: ``python -m benchmarks.child '{...}'``.

Responsible for: running a case one round at a time, as the harness says so.

Rules: commands come as lines on stdin, answers leave as JSON lines on a private copy of stdout;
whatever a system prints goes to stderr. Nothing heavy is imported at the top: systems that spawn
their workers import this module again in each of them.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["main"]


def _open(job: dict[str, Any]) -> Any:
    from benchmarks.base import Context
    from benchmarks.cases import CASES
    from benchmarks.systems import load, parse

    case = CASES[job["case"]]
    name, workers = parse(job["system"])
    context = Context(job["scale"], Path(job["directory"]), job["seed"], workers)
    return case.function(load(name, case.kind), context)


def _answer(step: Callable[[], Any]) -> dict[str, Any]:
    from benchmarks.base import Unsupported

    try:
        return {"metrics": step()}
    except (Unsupported, LookupError) as error:
        return {"unsupported": str(error)}
    except Exception as error:
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"}


def main(argument: str) -> None:
    """Answer every line of stdin with the next value of the case; end with it."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    job = json.loads(argument)
    rounds: Any = None

    def step() -> dict[str, float]:
        nonlocal rounds
        rounds = rounds or _open(job)
        return dict(next(rounds))

    for _ in sys.stdin:
        answer = _answer(step)
        print(json.dumps(answer), file=out)
        if "metrics" not in answer:
            break
    if rounds is not None:
        rounds.close()


if __name__ == "__main__":
    main(sys.argv[1])
