"""Fault injection: disks that fail, writers that die, power that goes, bits that flip.

For testing anything that keeps records in files, this package's storage first of all:

- `Tap` sees every system call on the files below one directory and may answer in its stead;
- `Strike` is such an answer at the n-th call: an error, a short write, death;
- `Recorder` notes what a session asked of its disk, and `PowerFailure` makes the disks that could
  be found after the power failed at any moment of it;
- `Damaged` flips bits and cuts files in place, and puts them back;
- `forked` runs children that can be killed.
"""

from __future__ import annotations

from splitpipe.testing.faults.children import Child, forked, run_in_child
from splitpipe.testing.faults.damage import Damaged
from splitpipe.testing.faults.power import Disk, Operation, PowerFailure, Recorder
from splitpipe.testing.faults.strikes import Answer, Strike, die, die_halfway, fail, shorten
from splitpipe.testing.faults.tap import CALLS, Call, Handler, Tap

__all__ = [
    "CALLS",
    "Answer",
    "Call",
    "Child",
    "Damaged",
    "Disk",
    "Handler",
    "Operation",
    "PowerFailure",
    "Recorder",
    "Strike",
    "Tap",
    "die",
    "die_halfway",
    "fail",
    "forked",
    "run_in_child",
    "shorten",
]
