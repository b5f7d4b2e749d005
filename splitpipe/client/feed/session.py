"""What a client and its engine agree on.

Responsible for: `Session`: which batches this client has received, given to its user, acknowledged
and heard to be journalled; what it says next, and what it makes of an answer. Nothing here opens,
waits, or reads a clock: it is given messages and times.

A batch is in one place at a time:

    (the engine) -> queued -> given -> done with, said or not -> (journalled)
                      |-> pushed back -> (the engine)

Rules:
- a batch that comes again is not given again: what is queued or given stays, and what is done with
  is acknowledged once more;
- whatever is lost on the way is found by the next `Hello`: it says what is held and what is done
  with, and the engine sends the rest again;
- few batches are asked for at first, and more each time that the user has emptied them and waits:
  who shares an iteration does not keep from others what it cannot use.
"""

from __future__ import annotations

import secrets
from bisect import insort
from collections import deque
from dataclasses import dataclass, field
from typing import TypeAlias

from splitpipe.client.feed.ranges import RangeSet, compact, without
from splitpipe.errors import ServiceError
from splitpipe.wire.carrying import Batch
from splitpipe.wire.messages import (
    Ack,
    Acked,
    Bye,
    Delivery,
    End,
    Failed,
    FromClient,
    FromEngine,
    Hello,
    Ping,
    Pong,
    PushBack,
    Ranges,
    Refused,
    Welcome,
    Window,
)

__all__ = ["Asked", "Hand", "Session"]

Hand: TypeAlias = list[tuple[Batch, int | None]]
"""A batch on its way to the user, and the sequence of the one that the user had before."""

_FIRST_WINDOW = 8
_LARGEST_WINDOW = 1024
_HELLO_AGAIN_S = 1.0
_HELLO_SOON_S = 0.05
_ACK_AFTER_S = 0.05
"""How long news of what is done with may wait for more of it: whoever waits for each batch would
else send a message for every one, and get an answer to each."""
_LEASE_S = 30.0
_HEADS_NBYTES = 1 << 20


@dataclass(frozen=True)
class Asked:
    """What a client wants of an iteration.

    Args:
        rank: of which rank it is.
        client: under which name it follows; empty where it shares.
        manual: batches are acknowledged by `Session.ack` alone.
        batches: how many batches may be outstanding; None for what turns out to be of use.
        nbytes: how many bytes may be.
        frame_nbytes: the largest frame that is taken.
        rewind: the sequence to begin with; None for where the server is.
    """

    rank: int = 0
    client: str = ""
    manual: bool = False
    batches: int | None = None
    nbytes: int = 64 << 20
    frame_nbytes: int = 1 << 30
    rewind: int | None = None

    @property
    def message_nbytes(self) -> int:
        """The most bytes that one message can have: all that may be outstanding, and one batch."""
        return self.frame_nbytes + self.nbytes + _HEADS_NBYTES


@dataclass
class Counts:
    """What has happened so far."""

    batches: int = 0
    samples: int = 0
    nbytes: int = 0
    repeated: int = 0
    dropped: int = 0
    welcomes: int = 0


@dataclass
class Session:
    """One client's side of the feed.

    Example:
        >>> session = Session(Asked(), "s" * 20)
        >>> [type(message).__name__ for message in session.begin("ticket", 0.0)]
        ['Hello']
        >>> session.receive(Welcome("id", 2, 30.0), 0.1)
        >>> session.receive(Delivery([Batch(0, 1, [b"zero"]), Batch(1, 1, [b"one"])]), 0.2)
        >>> session.take().frames, session.take().frames  # the second time acknowledges the first
        ([b'zero'], [b'one'])
        >>> session.say(0.3)
        [Ack(ranges=[(0, 1)])]
    """

    asked: Asked
    name: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    counts: Counts = field(default_factory=Counts)
    iteration: str = ""
    total: int | None = None
    lease_s: float = _LEASE_S
    connected: bool = False
    needs_ticket: bool = False
    refused: str = ""
    ended: bool = False
    base: int | None = None
    """The sequence below which everything was done with when this session began."""
    last: int | None = None
    """The sequence of the batch that was taken last."""

    def __post_init__(self) -> None:
        self._queue: deque[Batch] = deque()
        self._queued: set[int] = set()
        self._given: dict[int, int] = {}
        self._in_hand: int | None = None
        self._unsaid: set[int] = set()
        self._unsaid_nbytes = 0
        self._said: set[int] = set()
        self._delivered = RangeSet()
        self._failures: dict[int, Failed] = {}
        self._window = self.asked.batches or _FIRST_WINDOW
        self._since_grown = 0
        self._paused = False
        self._outbox: list[FromClient] = []
        self._ticket = ""
        self._hello_s = self._spoke_s = self._heard_s = self._acked_s = float("-inf")

    # What is said.

    def begin(self, ticket: str, now_s: float) -> list[FromClient]:
        """A way to the engine is there: return what is said first."""
        self._ticket = ticket
        self._queued = {batch.sequence for batch in self._queue}  # who took one was interrupted
        self.connected = self.needs_ticket = False
        self._outbox.clear()
        self._heard_s = now_s
        return [self._hello(now_s)]

    def say(self, now_s: float, *, all_acks: bool = False) -> list[FromClient]:
        """Return what is to be said now; maybe nothing."""
        if not self.connected:
            again = now_s - self._hello_s >= _HELLO_AGAIN_S
            return [self._hello(now_s)] if again and not self.needs_ticket else []
        said, self._outbox = self._outbox, []
        if self._unsaid and (all_acks or self.wants_to_ack(now_s)):
            said.append(Ack(compact(self._unsaid)))
            self._said |= self._unsaid
            self._unsaid = set()
            self._unsaid_nbytes = 0
            self._acked_s = now_s
        if not said and now_s - self._spoke_s >= self.lease_s / 3:
            said.append(Ping())
        if said:
            self._spoke_s = now_s
        return said

    def wants_to_ack(self, now_s: float) -> bool:
        """Whether what is done with should be said now, without waiting for more of it."""
        return bool(self._unsaid) and (
            len(self._unsaid) * 4 >= self._window
            or self._unsaid_nbytes * 4 >= self.asked.nbytes
            or now_s - self._acked_s >= _ACK_AFTER_S
        )

    def speak_at_s(self) -> float:
        """Return the time at which `say` has something to say at the latest."""
        if not self.connected:
            return self._hello_s + _HELLO_AGAIN_S
        if self._unsaid:
            return self._acked_s + _ACK_AFTER_S
        return self._spoke_s + self.lease_s / 3

    def silent(self, now_s: float) -> bool:
        """Whether the engine has been silent for longer than one that lives is."""
        return now_s - self._heard_s > self.lease_s * 2 / 3

    def farewell(self) -> Bye:
        """Return what is said last: what is done with, and that all else goes back."""
        self._said |= self._unsaid
        self._unsaid = set()
        self._paused = True  # whatever has to be said before it is heard, nothing is asked for
        self._queue.clear()
        self._queued.clear()
        self._given.clear()
        return Bye(compact(self._said))

    def _hello(self, now_s: float) -> Hello:
        self._hello_s = self._spoke_s = now_s
        asked = self.asked
        self._said |= self._unsaid
        self._unsaid = set()
        self._unsaid_nbytes = 0
        held = [*self._given, *self._queued]
        batches, nbytes = (0, 0) if self._paused else (self._window, asked.nbytes)
        return Hello(
            self._ticket,
            self.name,
            asked.rank,
            asked.client,
            batches,
            nbytes,
            compact(self._said),
            compact(held),
            asked.rewind if self.base is None else None,
            asked.frame_nbytes,
        )

    # What is heard.

    def receive(self, message: FromEngine, now_s: float) -> None:
        """Take what the engine says."""
        self._heard_s = now_s
        if type(message) is Delivery:
            for batch in message.batches:
                self._arrived(batch)
        elif type(message) is Acked:
            self._said = without(self._said, message.ranges)
        elif type(message) is Welcome:
            self._welcome(message)
        elif type(message) is Failed:
            self._failures[message.sequence] = message
        elif type(message) is End:
            self.total, self.ended = message.total, True
        elif type(message) is Refused:
            self._refused(message, now_s)
        else:
            assert type(message) is Pong

    def _welcome(self, message: Welcome) -> None:
        self.connected = True
        self.counts.welcomes += 1
        self.iteration, self.lease_s = message.iteration, message.lease_s
        if message.total_batches is not None:
            self.total = message.total_batches
        if self.base is None:
            self.base = message.next
        kept = without(self._queued, message.dropped)
        if len(kept) < len(self._queued):
            self.counts.dropped += len(self._queued) - len(kept)
            self._queued = kept
            self._queue = deque(batch for batch in self._queue if batch.sequence in kept)

    def _refused(self, message: Refused, now_s: float) -> None:
        self.connected = False
        if not message.retry:
            self.refused = message.reason or "the server ended this"
        elif message.ticket:
            self.needs_ticket = True
        else:
            self._hello_s = now_s - _HELLO_AGAIN_S + _HELLO_SOON_S

    def _arrived(self, batch: Batch) -> None:
        sequence = batch.sequence
        if sequence in self._delivered and sequence not in self._given:
            self.counts.repeated += 1
            self._unsaid.add(sequence)  # its user has had it, whatever became of that news
            return
        if sequence in self._given or sequence in self._queued:
            self.counts.repeated += 1
            return
        if self._paused:
            self._outbox.append(PushBack([(sequence, sequence + 1)]))
            return
        self._since_grown += 1
        self._queued.add(sequence)
        if self._queue and sequence < self._queue[-1].sequence:
            insort(self._queue, batch, key=lambda one: one.sequence)
        else:
            self._queue.append(batch)

    # What its user does.

    def take(self, hand: Hand | None = None) -> Batch | None:
        """Return the next batch, if one is there; the one before is done with, unless that is said
        by hand.

        Args:
            hand: is given the batch before it is out of the queue, so that who is interrupted has
                it to `put_back`.

        Raises:
            ServiceError: the server ended this, and said why.
        """
        if self._in_hand is not None:
            self.ack(self._in_hand)
            self._in_hand = None
        if self._paused:
            self._resume()
        if not self._queue:
            self._grow()
            if self.refused:
                raise ServiceError(self.refused)
            return None
        batch = self._queue[0]
        if hand is not None:
            hand.append((batch, self.last))
        nbytes = batch.nbytes
        counts = self.counts
        counts.batches += 1
        counts.samples += batch.samples
        counts.nbytes += nbytes
        self._given[batch.sequence] = nbytes
        self._delivered.add(batch.sequence)
        self._queue.popleft()
        self._queued.discard(batch.sequence)
        if not self.asked.manual:
            self._in_hand = batch.sequence
        self.last = batch.sequence
        return batch

    def put_back(self, batch: Batch, before: int | None) -> None:
        """A batch that was taken did not reach the user: it is next again.

        Args:
            batch: as `take` has put it into a hand.
            before: as well.
        """
        sequence = batch.sequence
        if all(one is not batch for one in self._queue):
            insort(self._queue, batch, key=lambda one: one.sequence)
        self._queued.add(sequence)
        self._delivered.discard(sequence)
        counts = self.counts
        if self._given.pop(sequence, None) is not None:
            counts.batches -= 1
            counts.samples -= batch.samples
            counts.nbytes -= batch.nbytes
        if self._in_hand == sequence:
            self._in_hand = None
        if self.last == sequence:
            self.last = before

    def failure(self) -> Failed | None:
        """Return what went wrong where the next batch should be, if nothing comes before it."""
        if self._queue or not self._failures:
            return None
        return self._failures[min(self._failures)]

    def ack(self, sequence: int) -> bool:
        """A batch that was taken is done with. False if it was already."""
        nbytes = self._given.get(sequence)
        if nbytes is None:
            return False
        self._unsaid.add(sequence)  # first: who is interrupted has said it, or says it again
        self._unsaid_nbytes += nbytes
        del self._given[sequence]
        if sequence == self._in_hand:
            self._in_hand = None
        return True

    def push_back(self) -> int:
        """Give back what was not taken, and ask for nothing until something is. Return how many
        batches that is.
        """
        ranges, count = compact(self._queued), len(self._queue)
        self._queue.clear()
        self._queued.clear()
        self._paused = True
        if self.connected:
            self._outbox += [Window(0, 0), PushBack(ranges)]
        return count

    def next_position(self) -> int | None:
        """Return the sequence below which everything was delivered, here or before; None if others
        have had some in between.
        """
        ranges = self._delivered.ranges
        base = self.asked.rewind if self.base is None else self.base
        if not ranges:
            return base or 0
        if len(ranges) > 1 or ranges[0][0] > (base or 0):
            return None
        return max(ranges[0][1], base or 0)

    @property
    def unconfirmed(self) -> int:
        """How many batches are done with and not known to be journalled."""
        return len(self._said) + len(self._unsaid)

    @property
    def held(self) -> Ranges:
        """What was received and is not done with."""
        return compact([*self._given, *self._queued])

    @property
    def queued(self) -> int:
        """How many batches wait to be taken."""
        return len(self._queue)

    @property
    def window(self) -> int:
        """How many batches may be outstanding."""
        return 0 if self._paused else self._window

    def _resume(self) -> None:
        self._paused = False
        self._ask()

    def _grow(self) -> None:
        """Ask for more batches at once if all of them were used up."""
        if self.asked.batches is None and self._since_grown >= self._window < _LARGEST_WINDOW:
            self._window *= 2
            self._since_grown = 0
            self._ask()

    def _ask(self) -> None:
        if self.connected:
            self._outbox.append(Window(self._window, self.asked.nbytes))
