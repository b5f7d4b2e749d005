"""Many sources as one: how often each is drawn from, and in which turn.

Responsible for: `Stream` and `Streams`, what a user describes (``stream``); how many samples each
stream gives in an epoch (``counts``); which turn is whose (``schedules``, ``spread``); what a
stream's n-th sample of an epoch is (``draws``); and the order that comes of it, from positions to
rows of all streams' records end to end (``mixed``, ``chain``).

Rules:
- a position's row is arithmetic on (streams, seed, epoch): O(streams) memory, no list of an epoch;
  so whatever works by position (claims, ranks, balance, states) works as for one dataset;
- every stream gives exactly as many samples as `Streams.counts` says, in the stream's own order.
"""

from __future__ import annotations

from splitpipe.pipeline.streams.stream import Stream, Streams

__all__ = ["Stream", "Streams"]
