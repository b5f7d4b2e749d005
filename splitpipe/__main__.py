"""``python -m splitpipe``: the command `splitpipe` where its script is not on the path."""

from __future__ import annotations

import sys

from splitpipe.cli import main

# Worker processes import the main module again: without this line each would run the command.
if __name__ == "__main__":
    sys.exit(main())
