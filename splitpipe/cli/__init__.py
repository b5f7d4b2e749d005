"""The command `splitpipe`: one file a command.

Responsible for: turning a command line into calls of the library, and results and errors into text.

Rules:
- importing this package loads neither typer nor rich: a worker process of the demo imports it too,
  and without the extra [cli] the command still says what to install;
- an error of splitpipe is one message on stderr and exit code 1, never a traceback;
- Ctrl-C and SIGTERM end a command the way an exception does: everything is closed and removed.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import NoReturn

__all__ = ["main"]

_EXTRA = {"rich", "typer"}


def main() -> int:
    """Run the command line of this process.

    Returns:
        The exit code: 0, 1 when splitpipe raised an error, 2 for a wrong command line or a missing
        extra, 130 after Ctrl-C, 143 after SIGTERM.
    """
    signal.signal(signal.SIGTERM, _leave)
    try:
        from splitpipe.cli.app import run

        return run(sys.argv[1:])
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRA:
            raise
        print(
            f"splitpipe: the command line needs {missing}, which is not installed.\n"
            "Install it with the extra [cli]: pip install 'splitpipe[cli]'",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        return 130


def _leave(_number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(128 + signal.SIGTERM)
