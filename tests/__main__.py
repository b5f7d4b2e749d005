"""Run the whole suite, in seven parts, five at once: ``python -m tests``.

Side by side they take little more than half the time that one would on two processors, since most
tests wait for processes that they start. Each is an ordinary run of pytest over its folders;
whatever is not named here belongs to the last, so that nothing is left out. Arguments go to all.

Tests that are marked `long` are left out, unless ``--long`` asks for them.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[1]
BYTECODE = "PYTHONDONTWRITEBYTECODE"
AT_ONCE = 5
"""Processes of pytest: enough to use two processors, few enough that tests need not wait long."""

NAMED = (
    ("splitpipe", "cli", "conversion", "docs", "formats", "integrations", "pipeline", "tokens"),
    ("runtime",),
    ("faults", "jobs", "recording", "safety", "verification"),
    ("cache", "raw", "remote", "stores"),
    ("client", "server", "wire"),
)


def parts() -> list[list[str]]:
    """Return the folders and files of each run."""
    inside = sorted((ROOT / "tests").iterdir())
    folders = [path.name for path in inside if path.is_dir() and any(path.glob("test_*.py"))]
    files = [path.name for path in inside if path.name.startswith("test_")]
    named = {name for part in NAMED for name in part}
    rest = tuple(name for name in (*folders, *files) if name not in named)
    made = [
        [name if name == "splitpipe" else f"tests/{name}" for name in part]
        for part in (*NAMED, rest)
    ]
    # One folder is two processes' work.
    files = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("tests/runtime/test_*.py"))
    at = made.index(["tests/runtime"])
    made[at : at + 1] = [files[::2], files[1::2]]
    return made


def main() -> int:
    """Run all parts; what the others say is shown when the first has ended."""
    arguments = sys.argv[1:]
    if "--long" in arguments:
        arguments.remove("--long")
    else:
        arguments[:0] = ["-m", "not long"]
    # Tests start Python hundreds of times, and without bytecode each compiles the whole package. It
    # has to be said before pytest starts, too: fork servers are started with this process's flags.
    environment = {key: text for key, text in os.environ.items() if key != BYTECODE}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    first, *others = parts()

    def run(part: list[str], output: IO[bytes] | None = None) -> int:
        return subprocess.run(
            [*command, *part],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=None if output is None else subprocess.STDOUT,
            check=False,
        ).returncode

    with contextlib.ExitStack() as stack:
        # Not pipes: nobody reads them meanwhile.
        outputs = [stack.enter_context(tempfile.TemporaryFile()) for _ in others]
        pool = stack.enter_context(ThreadPoolExecutor(AT_ONCE - 1))
        beside = [pool.submit(run, *one) for one in zip(others, outputs, strict=True)]
        status = run(first)
        for one, output in zip(beside, outputs, strict=True):
            status = one.result() or status
            output.seek(0)
            sys.stdout.flush()
            sys.stdout.buffer.write(output.read())
    return status


if __name__ == "__main__":
    sys.exit(main())
