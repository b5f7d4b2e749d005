"""Run the whole suite, in two processes: ``python -m tests``.

Two halves side by side take little more than half the time, since most tests wait for processes
that they start. Each half is an ordinary run of pytest over its folders; whatever is not named here
belongs to the second, so that nothing is left out. Arguments go to both.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FIRST = ("cli", "conversion", "formats", "integrations", "pipeline", "safety", "storage", "tokens")


def halves() -> tuple[list[str], list[str]]:
    """Return the folders and files of each half."""
    inside = sorted((ROOT / "tests").iterdir())
    folders = [path.name for path in inside if path.is_dir() and any(path.glob("test_*.py"))]
    files = [path.name for path in inside if path.name.startswith("test_")]
    others = [name for name in (*folders, *files) if name not in FIRST]
    return (
        ["splitpipe", *(f"tests/{name}" for name in FIRST)],
        [f"tests/{name}" for name in others],
    )


def main() -> int:
    """Run both halves; what the second says is shown when the first has ended."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *sys.argv[1:]]
    first, second = halves()
    with subprocess.Popen(
        [*command, *second], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as other:
        status = subprocess.run([*command, *first], cwd=ROOT, check=False).returncode
        output, _ = other.communicate()
        sys.stdout.flush()
        sys.stdout.buffer.write(output)
        return status or other.returncode


if __name__ == "__main__":
    sys.exit(main())
