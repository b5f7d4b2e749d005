"""Run the whole suite, in six processes: ``python -m tests``.

Side by side they take little more than half the time that one would on two processors, since most
tests wait for processes that they start. Each is an ordinary run of pytest over its folders;
whatever is not named here belongs to the last, so that nothing is left out. Arguments go to all.

Tests that are marked `long` are left out, unless ``--long`` asks for them.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAMED = (
    ("splitpipe", "cli", "conversion", "formats", "integrations", "pipeline", "tokens"),
    ("runtime",),
    ("faults", "jobs", "recording", "safety", "verification"),
    ("cache", "raw", "remote", "stores"),
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
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    first, *others = parts()
    with contextlib.ExitStack() as stack:
        beside = []
        for part in others:
            # Not a pipe: nobody reads it meanwhile.
            output = stack.enter_context(tempfile.TemporaryFile())
            run = subprocess.Popen(
                [*command, *part], cwd=ROOT, stdout=output, stderr=subprocess.STDOUT
            )
            beside.append((run, output))
        status = subprocess.run([*command, *first], cwd=ROOT, check=False).returncode
        for run, output in beside:
            status = run.wait() or status
            output.seek(0)
            sys.stdout.flush()
            sys.stdout.buffer.write(output.read())
    return status


if __name__ == "__main__":
    sys.exit(main())
