"""A way to the engine of an iteration.

Responsible for: the seam `Link`.

Rules:
- a link is of one thread at a time; whoever uses it holds the feed's lock;
- a link that broke stays so: another one is made, and `Hello` said over it;
- nothing waits but `wait`, and that ends when it is woken.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from splitpipe.errors import ChannelError
from splitpipe.wire.limits import Buffer

__all__ = ["BrokenLink", "Link"]


class BrokenLink(ChannelError):
    """A link to an engine is no more: another one has to be made."""


class Link(ABC):
    """Messages, as frames, to an engine and back."""

    @abstractmethod
    def send(self, messages: Sequence[Sequence[Buffer]]) -> None:
        """Send messages, in this order.

        Raises:
            BrokenLink: they may not have arrived, and nothing will arrive any more.
        """

    @abstractmethod
    def receive(self) -> list[list[Buffer]]:
        """Return the messages that are there, in their order; maybe none.

        Raises:
            BrokenLink: nothing will arrive any more.
        """

    @abstractmethod
    def wait(self, timeout_s: float, wake: int) -> None:
        """Wait until there may be messages, the descriptor `wake` can be read, or time is over."""

    @abstractmethod
    def close(self, linger_s: float = 0.0) -> None:
        """End the link; what was sent may take this long to leave."""
