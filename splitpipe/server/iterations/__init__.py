"""Iterations: from what somebody asked for to batches, encoded, in their order.

Responsible for: ``description`` says what may be asked for; ``streams`` makes the batches of it.
Who gets which batch is the business of ``feed/``.
"""
