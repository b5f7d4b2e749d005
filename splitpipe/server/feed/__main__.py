"""Being an engine: ``python -m splitpipe.server.feed CONTROL HOLD``, two descriptors.

Responsible for: the order of the beginning. First a process binds its life to the server's, which
takes a few milliseconds; loading what an engine needs takes a second on a busy machine, and a
server that dies meanwhile must leave nothing.
"""

from __future__ import annotations

import sys

from splitpipe.server.children import die_with_the_server


def main() -> None:
    """Live as long as the server, and deliver what it says."""
    control, hold = (int(argument) for argument in sys.argv[1:])
    die_with_the_server(hold)
    from splitpipe.server.feed.engine import deliver  # see above

    deliver(control)


if __name__ == "__main__":
    main()
