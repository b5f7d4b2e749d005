"""The parts of ``benchmarks.streaming``: layouts of the systems, and readers of them."""
