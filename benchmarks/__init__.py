"""Measures splitpipe side by side with its peers: ``python -m benchmarks --list`` shows what.

Responsible for: one harness, the cases, one adapter a system, the bars as data, the report.

Rules:
- a number is taken only after the same code delivered the right bytes, all of them, once each;
- each (case, system) runs in a process of its own, and the systems of one case take turns round
  by round, so that a drift of the machine hits all of them alike;
- a loss is printed like a win.

    python -m benchmarks --suite bars             what the bars need, and nothing else
    python -m benchmarks --suite full             every case with every system that is installed
    python -m benchmarks --case w1_read --system lmdb --quick
"""
