"""What an engine and its peers may use.

Responsible for: `FeedLimits`, numbers with their units, and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FeedLimits"]


@dataclass(frozen=True, slots=True)
class FeedLimits:
    """Bounds of one engine.

    Attributes:
        window_nbytes: batches that are kept after they were made, for clients that are behind.
        ahead_nbytes: batches that are made before anybody may have them.
        ahead_batches: the same as a count.
        block_nbytes: what is made at a time for somebody who is behind the window.
        block_batches: the same as a count.
        session_batches: the most that one session may hold unacknowledged.
        session_nbytes: the same in bytes.
        sessions: how many clients one engine serves.
        message_nbytes: the largest frame that a client may send.
        message_ranges: the most ranges in one message of a client.
        batches_together: how many small batches one message carries.
        nbytes_together: how many bytes of them.
        strikes: rubbish that a peer may send before it is not answered any more.
        queue_messages: messages that may wait for one peer in the socket.
        unheard_messages: messages of one peer that may wait to be heard.
    """

    window_nbytes: int = 256 << 20
    ahead_nbytes: int = 64 << 20
    ahead_batches: int = 4096
    block_nbytes: int = 16 << 20
    block_batches: int = 64
    session_batches: int = 4096
    session_nbytes: int = 1 << 30
    sessions: int = 4096
    message_nbytes: int = 1 << 18
    message_ranges: int = 8192
    batches_together: int = 256
    nbytes_together: int = 4 << 20
    strikes: int = 100
    queue_messages: int = 8192
    unheard_messages: int = 64
