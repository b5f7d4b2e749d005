"""Kills at random, and looks whether anybody notices: ``python -m benchmarks.chaos``.

Responsible for: two runs that must come out as if nothing had happened.

- By default the *workers* of a real pipeline over 10^6 records are killed by SIGKILL while a loop
  reads it. The hash of the stream has to be that of a run in which nothing was killed, and no wait
  may be endless. It reports the time from a death until the worker that took its place made its
  first item, and until the consumer got an item again.
- With ``--consumer`` whole *programs* are killed, interrupted or ended, while they read. One second
  later there must be no process, socket, segment or temporary file of theirs; and a foreign program
  beside them, whose names look like theirs, must have all that it had.

    python -m benchmarks.chaos --kills 1000 --records 1000000 --seed 0
    python -m benchmarks.chaos --minutes 10 --seed 0
    python -m benchmarks.chaos --consumer --kills 500 --seed 0

Rules:
- everything random comes from the seed; the moments of the kills also depend on the machine;
- the verdict is the last line. Exit status: 0 passed, 1 failed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from benchmarks.chaotic.consumers import consumer_chaos
from benchmarks.chaotic.workers import worker_chaos

__all__ = ["main"]

PASSED, FAILED = 0, 1


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.chaos",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--minutes", type=float, help="how long to go on, instead of a number of kills")
    add("--kills", type=int, help="how many (default: 1000 workers, 500 consumers)")
    add("--records", type=int, default=1_000_000, help="of the pipeline whose workers are killed")
    add("--workers", type=int, default=2, help="of the pool in that pipeline")
    add("--seed", type=int, default=0)
    add("--start-method", choices=("forkserver", "spawn", "fork"), default="forkserver")
    add("--transport", choices=("pipe", "zmq", "zmq+tcp"), default="pipe")
    add("--hang", type=float, default=30.0, help="seconds without an item that are a hang")
    add("--whole", action="store_true", help="with stages over the whole stream: kill fewer")
    add("--consumer", action="store_true", help="kill and interrupt whole programs")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Run what the arguments ask for; returns the exit status."""
    arguments = _arguments(argv)
    if arguments.consumer:
        report = consumer_chaos(
            kills=arguments.kills or (10**9 if arguments.minutes else 500),
            minutes=arguments.minutes,
            seed=arguments.seed,
        )
    else:
        report = worker_chaos(
            kills=arguments.kills or (10**9 if arguments.minutes else 1000),
            minutes=arguments.minutes,
            records=arguments.records,
            workers=arguments.workers,
            seed=arguments.seed,
            options={"start_method": arguments.start_method, "transport": arguments.transport},
            hang_s=arguments.hang,
            whole=arguments.whole,
        )
    for line in report.lines:
        print(line)
    print("PASSED" if report.passed else "FAILED: " + "; ".join(report.faults))
    return PASSED if report.passed else FAILED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
