"""Proving on a user's own graph what splitpipe promises, and making one item of a run again.

Responsible for: `verify` and `replay`. A check runs the graph in two ways and compares the digests
of what comes out (`streams`); what differs is traced to the stage that it begins with (`blame`,
`causes`).
"""

from __future__ import annotations

from splitpipe.verification.replaying import Replay, replay
from splitpipe.verification.report import Check, Verification
from splitpipe.verification.verifying import verify

__all__ = ["Check", "Replay", "Verification", "replay", "verify"]
