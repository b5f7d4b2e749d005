"""The seam between tasks and whatever carries their messages.

Responsible for: the interface that every channel has. A `Link` is made by the owner of a run,
before any worker starts; it travels to the workers as an argument, and each of them takes its
`Sender` or its `Receiver` from it.

Rules:
- a link joins any number of writers to any number of readers: a message goes to exactly one
  reader, whole or not at all, whoever dies in the middle of it, and messages of one writer that
  reach one reader keep their order;
- there is no lock between processes and none that could outlive its owner;
- waiting ends on a message, on `Link.shut`, or (for who asks) on any other descriptor: nothing
  polls on a clock;
- after `shut` every sender and receiver, wherever it is, raises `BrokenChannel`; after its own
  `close`, `ClosedChannel`.

What it does not do: it does not look into a message, and it does not order messages of several
writers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeAlias

__all__ = ["Buffer", "ChannelStatistics", "Link", "Receiver", "Sender", "Watcher"]

Buffer: TypeAlias = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class ChannelStatistics:
    """What went through one end of a channel: messages, and bytes of them (not of arenas)."""

    messages: int
    nbytes: int


class Watcher(Protocol):
    """Who has to know when a producer waits for memory that its readers hold."""

    def begin_wait(self, still: Callable[[], bool]) -> None:
        """It begins to wait; `still` tells whether it does so for a reason."""

    def end_wait(self) -> None:
        """It waits no longer."""

    def unwanted(self) -> bool:
        """Whether it need not wait: nobody wants what it makes."""


class Sender(ABC):
    """The writing end of a link, used by one task."""

    @abstractmethod
    def send(self, parts: Sequence[Buffer]) -> None:
        """Send the concatenation of `parts` as one message; wait while there is no room.

        Raises:
            BrokenChannel: the link was shut.
            ClosedChannel: this sender was closed.
        """

    @abstractmethod
    def wait(self, watch: Sequence[int] = (), *, block: bool = True) -> bool:
        """Wait until there is room, so that `send` would not wait (True), or until something else
        happened (False): a descriptor of `watch` is readable, say. With ``block=False``, only tell.

        Room stays for who has seen it, where nobody else writes to the link. A link that was shut
        has room: `send` says what became of it.

        Raises:
            ClosedChannel: this sender was closed.
        """

    @abstractmethod
    def full(self) -> bool:
        """Whether a thread that found no room still finds none; for any other thread."""

    @abstractmethod
    def close(self) -> None:
        """Let go of this end; what was sent still arrives."""

    @abstractmethod
    def statistics(self) -> ChannelStatistics:
        """Return what was sent so far."""


class Receiver(ABC):
    """The reading end of a link, used by one task."""

    @abstractmethod
    def receive(self, *, block: bool = True) -> Buffer | None:
        """Return the next message; with ``block=False``, None when there is none now.

        Raises:
            BrokenChannel: the link was shut and holds no more messages for this reader.
            ClosedChannel: this receiver was closed.
        """

    def receive_soon(self) -> Buffer | None:
        """Return the next message; None when there is none now, and none comes in a moment: some
        milliseconds, or none at all where a channel cannot wait for so long.

        It is for the only reader of a link who expects a message, and would have much to do before
        and after `wait`. Raises as `receive`.
        """
        return self.receive(block=False)

    @abstractmethod
    def wait(self, watch: Sequence[int] = ()) -> bool:
        """Wait until `receive` has something to say (True) or a descriptor of `watch` is readable
        (False).
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of this end."""

    @abstractmethod
    def statistics(self) -> ChannelStatistics:
        """Return what was received so far."""


class Link(ABC):
    """A channel as its owner sees it: handed to children, shut when the run ends."""

    lingers: ClassVar[bool] = False
    """Whether a writer that leaves before `shut` may take its last messages with it."""

    @abstractmethod
    def sender(self, index: int = 0) -> Sender:
        """Return the end of writer `index`; in the process that will use it, at most once an
        index.
        """

    @abstractmethod
    def receiver(self, index: int = 0) -> Receiver:
        """Return the end of reader `index`; in the process that will use it, at most once an
        index.
        """

    @abstractmethod
    def shut(self) -> None:
        """Break the link for everyone, now; wakes whoever waits on it, in any process."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the owner's handles."""
