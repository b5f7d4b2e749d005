"""What importing costs: ``python -m benchmarks.importing``.

Responsible for: the CPU time of `import splitpipe`, and of its first names, beyond that of numpy,
each in a process of its own, in turns.

Rules: CPU time, user and system, of the whole process, so that what others do on the machine is
not counted; the median of the rounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys

__all__ = ["main", "measured"]

PROGRAMS = {
    "python": "pass",
    "numpy": "import numpy",
    "splitpipe": "import numpy, splitpipe",
    "splitpipe.open_dataset": "import numpy, splitpipe; splitpipe.open_dataset",
    "splitpipe.Pipeline": "import numpy, splitpipe; splitpipe.Pipeline",
    "every public name": (
        "import numpy, splitpipe\nfor name in splitpipe.__all__: getattr(splitpipe, name)"
    ),
}
BAR_MS = 60.0
"""What `import splitpipe` may cost beyond numpy."""


def measured(rounds: int = 11) -> dict[str, float]:
    """The median CPU time of each program, in milliseconds."""
    found: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for _ in range(rounds + 1):
        for name, program in PROGRAMS.items():
            found[name].append(_cpu_ms(program))
    return {name: statistics.median(times[1:]) for name, times in found.items()}  # the first warms


def main(arguments: list[str] | None = None) -> int:
    """Print a table; the exit code is 1 when the bar is missed."""
    parser = argparse.ArgumentParser(description="What importing costs.")
    parser.add_argument("--rounds", type=int, default=11)
    times = measured(parser.parse_args(arguments).rounds)
    print("| | CPU, ms | beyond numpy, ms |\n|---|---|---|")
    for name, time_ms in times.items():
        print(f"| {name} | {time_ms:.0f} | {time_ms - times['numpy']:+.0f} |")
    beyond = times["splitpipe"] - times["numpy"]
    print(f"\nimport splitpipe: {beyond:.1f} ms beyond numpy; the bar is {BAR_MS:g}")
    return int(beyond > BAR_MS)


def _cpu_ms(program: str) -> float:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    process = subprocess.Popen([sys.executable, "-c", program], env=environment)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{program!r} ended with {process.returncode}")
    return 1000 * (used.ru_utime + used.ru_stime)


if __name__ == "__main__":
    sys.exit(main())
