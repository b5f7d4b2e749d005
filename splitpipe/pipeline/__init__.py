"""What to do, as values: sources, stages, their graph, and the plan of who does what.

Nothing here opens a file, starts a process or waits. A pipeline is described, copied, printed and
planned without side effects; `splitpipe.runtime` runs it.
"""
