"""Fault injection: stages that fail, workers that die, disks in trouble, bits that flip.

For testing anything that runs user code in other processes, your own pipelines first of all:

- `Fault` strikes at a chosen item, in a chosen worker, once or always: an exception, an exit, a
  signal, a wait without end;
- `FaultLog` is where all processes note what struck, and what they count by;
- `Estate` is what a program and its family own, to see afterwards that nothing is left.

For testing anything that keeps records in files, this package's storage first of all:

- `Tap` sees every system call on the files below one directory and may answer in its stead;
- `Strike` is such an answer at the n-th call: an error, a short write, death;
- `Recorder` notes what a session asked of its disk, and `PowerFailure` makes the disks that could
  be found after the power failed at any moment of it;
- `Damaged` flips bits and cuts files in place, and puts them back;
- `forked` runs children that can be killed.

For testing anything that reads over HTTP: `FaultProxy` stands in front of a real server and damages
the requests that an `HttpFault` chooses; `chaos` is a mixture of all kinds.
"""

from __future__ import annotations

from splitpipe.testing.faults.children import Child, forked, run_in_child
from splitpipe.testing.faults.damage import Damaged
from splitpipe.testing.faults.estate import Estate, adopt_orphans
from splitpipe.testing.faults.log import FaultLog, Incident
from splitpipe.testing.faults.power import Disk, Operation, PowerFailure, Recorder
from splitpipe.testing.faults.proxy import (
    FaultKind,
    FaultProxy,
    HttpFault,
    ProxyStatistics,
    SeenRequest,
    chaos,
)
from splitpipe.testing.faults.stages import HOWS, Fault, How, InjectedFault, worker_index
from splitpipe.testing.faults.strikes import Answer, Strike, die, die_halfway, fail, shorten
from splitpipe.testing.faults.tap import CALLS, Call, Handler, Tap

__all__ = [
    "CALLS",
    "HOWS",
    "Answer",
    "Call",
    "Child",
    "Damaged",
    "Disk",
    "Estate",
    "Fault",
    "FaultKind",
    "FaultLog",
    "FaultProxy",
    "Handler",
    "How",
    "HttpFault",
    "Incident",
    "InjectedFault",
    "Operation",
    "PowerFailure",
    "ProxyStatistics",
    "Recorder",
    "SeenRequest",
    "Strike",
    "Tap",
    "adopt_orphans",
    "chaos",
    "die",
    "die_halfway",
    "fail",
    "forked",
    "run_in_child",
    "shorten",
    "worker_index",
]
