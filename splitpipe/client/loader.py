"""`RemoteLoader`: batches that a server makes.

Responsible for: what a training loop holds of an iteration that runs elsewhere: the iterator, where
it is, its statistics, its end.

Rules:
- a batch is done with when its user asks for the next one, or closes in good order: one that was
  in use when its user died goes to another, or comes again;
- a server that is away for a while is waited for; nothing is lost, and nothing comes twice;
- an error that a record caused on the server is raised at its batch's place, and the loader is
  over: it raises the same again, never a StopIteration that would look like the end of the data;
- a state is a position, and a promise only where one client reads: where several share, the server
  alone knows what is left.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

from splitpipe import errors
from splitpipe.client.feed.feed import Feed
from splitpipe.client.feed.links import Links, Transport
from splitpipe.client.feed.session import Asked, Hand, Session
from splitpipe.client.http import Http
from splitpipe.errors import (
    InvalidRequest,
    ResumeError,
    ServiceError,
    SplitpipeError,
    StageFailed,
    WireError,
)
from splitpipe.wire.limits import Limits
from splitpipe.wire.messages import Failed
from splitpipe.wire.values import decode

__all__ = ["Options", "RemoteLoader", "RemoteStatistics"]


@dataclass(frozen=True)
class Options:
    """How one client reads an iteration.

    Args:
        rank: of which rank it is.
        client: the name under which it follows; empty where clients share.
        ack: ``"next"``, or ``"manual"``: `RemoteLoader.ack` alone says what is done with.
        prefetch: how many batches may be on their way or waiting; None for what is of use.
        prefetch_nbytes: how many bytes may be; one batch may be larger.
        transport: ``"zmq"``, ``"http"``, or ``"auto"``: the first that works.
        reconnect_s: for how long, in seconds, the server may be away.
        limits: of what arrives.
    """

    rank: int = 0
    client: str = ""
    ack: str = "next"
    prefetch: int | None = None
    prefetch_nbytes: int = 64 << 20
    transport: Transport = "auto"
    reconnect_s: float = 300.0
    limits: Limits = Limits()  # noqa: RUF009  a frozen value

    def __post_init__(self) -> None:
        if self.ack not in ("next", "manual"):
            raise InvalidRequest(f"ack={self.ack!r}: 'next' or 'manual'")
        if self.transport not in ("auto", "zmq", "http"):
            raise InvalidRequest(f"transport={self.transport!r}: 'auto', 'zmq' or 'http'")
        if self.prefetch is not None and self.prefetch < 1:
            raise InvalidRequest(f"prefetch={self.prefetch}: 1 at least")

    def asked(self, rewind: int | None) -> Asked:
        """Return what a session asks for."""
        return Asked(
            rank=self.rank,
            client=self.client,
            manual=self.ack == "manual",
            batches=self.prefetch,
            nbytes=self.prefetch_nbytes,
            frame_nbytes=self.limits.nbytes,
            rewind=rewind,
        )


@dataclass(frozen=True)
class RemoteStatistics:
    """What a remote loader did so far.

    Args:
        batches: how many were given.
        samples: how many samples were in them.
        nbytes: their bytes on the wire.
        waited_s: for how long, in seconds, its user waited.
        queued: how many batches are here and not given.
        window: how many may be on their way, or here and not done with.
        unconfirmed: how many are done with, and not known to be written down by the server.
        connections: how many connections were made.
        repeated: how many batches came again and were not given again.
        dropped: how many were taken back before they were given.
        transport: how batches come now.
        total: how many batches there are for its rank, if that is known.
    """

    batches: int
    samples: int
    nbytes: int
    waited_s: float
    queued: int
    window: int
    unconfirmed: int
    connections: int
    repeated: int
    dropped: int
    transport: str
    total: int | None


class RemoteLoader:
    """The batches of an iteration on a server, in order. Made by `Client.iterate`.

    Attributes:
        iteration: its id: what others share, follow, or go on with.
        sequence: the number of the last batch, from 0 within this rank; None before the first.
    """

    def __init__(self, http: Http, iteration: str, options: Options, *, state: Any = None) -> None:
        self.iteration = iteration
        self.options = options
        self._http = http
        self._failure: Exception | None = None
        self._over = False
        self._convert: Callable[[Any], Any] | None = None
        self._begin(None if state is None else self._position(state))

    def _begin(self, rewind: int | None) -> None:
        options = self.options
        session = Session(options.asked(rewind))
        links = Links(self._http, self.iteration, options.transport)
        limits = replace(options.limits, nbytes=session.asked.message_nbytes)
        self._feed = Feed(session, links, limits=limits, reconnect_s=options.reconnect_s)
        self._finalizer = weakref.finalize(self, self._feed.abandon)
        self._finalizer.atexit = False  # the feed sees to that, while its threads still run
        self._over = False
        self._failure = None

    def __iter__(self) -> RemoteLoader:
        return self

    def __next__(self) -> Any:
        return self.take()

    def take(self, *, timeout_s: float | None = None) -> Any:
        """Return the next batch, as ``next`` does.

        Raises:
            StopIteration: that was the last one.
            TimeoutError: none came in time; ask again.
            StageFailed: it could not be made, and its error is none of this project.
            ServiceError: the server ended the iteration, or was away for too long.
        """
        if self._over:
            if self._failure is not None:
                raise self._failure
            raise StopIteration
        hand: Hand = []
        try:
            return self._take(hand, timeout_s)
        except Exception:
            raise
        except BaseException:  # Ctrl-C: whoever goes on reading misses nothing
            self._feed.put_back(hand)
            raise

    def _take(self, hand: Hand, timeout_s: float | None) -> Any:
        try:
            found = self._feed.take(hand, timeout_s=timeout_s)
        except ServiceError as error:
            self._failure = error
            left = self._shut(in_good_order=False)
            if left:
                error.add_note(
                    f"{left} batches that are done with come again: the server does not know"
                )
            raise
        if found is None:
            self._end()
            raise StopIteration
        if isinstance(found, Failed):
            self._failure = _error(found)
            self._end(in_good_order=True)
            raise self._failure
        try:
            value = decode(found.frames, limits=self.options.limits)
        except WireError as error:
            self._failure = error
            self._shut(in_good_order=False)
            raise
        return value if self._convert is None else self._convert(value)

    def wait(self, timeout_s: float) -> None:
        """Wait until there may be a batch to `take`, or time is over."""
        if not self._over:
            self._feed.wait(timeout_s)

    @property
    def sequence(self) -> int | None:
        """The number of the last batch, from 0 within this rank; None before the first."""
        return self._feed.session.last

    def ack(self, sequence: int | None = None) -> None:
        """Say that a batch is done with: the last one, or the one of this number.

        What is done with does not come again, whoever asks. Saying it twice changes nothing.
        """
        sequence = self.sequence if sequence is None else sequence
        if sequence is not None:
            self._feed.ack(sequence)

    def pushback(self) -> int:
        """Give back what is here and was not given, for others; return how many batches that is.
        The next ``next`` asks for more.
        """
        return self._feed.push_back()

    def state_dict(self) -> dict[str, Any]:
        """Return where the loader is, in values of JSON: what `load_state_dict`, and ``state=`` of
        `Client.iterate`, go on from with exactly the batches that would have come next.

        Raises:
            ResumeError: other clients have read in between, so that there is no such place.
        """
        position = self._feed.session.next_position()
        if position is None:
            raise ResumeError(
                f"rank {self.options.rank} of iteration {self.iteration} is shared: other clients "
                "had batches between those of this one. The server knows what is left: connect "
                "again with the same id, or follow with mode='follow' to have a place of your own"
            )
        return {
            "version": 1,
            "iteration": self.iteration,
            "rank": self.options.rank,
            "client": self.options.client,
            "next": position,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that `state_dict` has returned, of this iteration and rank.

        Raises:
            ResumeError: it is of another one.
        """
        position = self._position(state)
        self._feed.close(in_good_order=True)
        self._finalizer.detach()
        self._begin(position)

    def _position(self, state: Any) -> int:
        if not isinstance(state, Mapping) or state.get("version") != 1:
            raise ResumeError("this is no state of a remote loader")
        own = {"iteration": self.iteration, "rank": self.options.rank}
        own["client"] = self.options.client
        for name, value in own.items():
            if state.get(name) != value:
                raise ResumeError(f"the state is of {name} {state.get(name)!r}, this is {value!r}")
        position = state.get("next")
        if type(position) is not int or position < 0:
            raise ResumeError(f"the state says that batch {position!r} is next")
        return position

    def stats(self) -> RemoteStatistics:
        """Return what happened so far."""
        session, counts = self._feed.session, self._feed.session.counts
        return RemoteStatistics(
            batches=counts.batches,
            samples=counts.samples,
            nbytes=counts.nbytes,
            waited_s=self._feed.waited_s,
            queued=session.queued,
            window=session.window,
            unconfirmed=session.unconfirmed,
            connections=counts.welcomes,
            repeated=counts.repeated,
            dropped=counts.dropped,
            transport=self._feed.links.name,
            total=session.total,
        )

    def to_torch(self) -> RemoteLoader:
        """Let arrays be tensors from now on, over the same memory; return this loader.

        Arrays of a type that torch does not have stay what they are.

        Raises:
            ImportError: there is no torch.
        """
        from splitpipe.integrations.torch import tensors  # it has an extra of its own

        self._convert = tensors(unshared=True)  # the memory was made for this batch alone
        return self

    def close(self, *, timeout_s: float = 10.0) -> None:
        """End: what was given is done with (unless that is said by hand), the rest goes back.

        Safe to call twice.

        Args:
            timeout_s: how long to wait, in seconds, for a server that is away to hear of it; it
                warns where that was not long enough.
        """
        self._end(timeout_s=timeout_s)

    def _shut(self, *, in_good_order: bool, timeout_s: float = 10.0) -> int:
        """End; return how many batches the server could not be told are done with."""
        if self._over:
            return 0
        left = self._feed.close(in_good_order=in_good_order, timeout_s=timeout_s)
        self._over = True  # after it: whoever interrupted this can close again
        self._finalizer.detach()
        return left

    def _end(self, *, in_good_order: bool = True, timeout_s: float = 10.0) -> None:
        left = self._shut(in_good_order=in_good_order, timeout_s=timeout_s)
        if left:
            warnings.warn(
                f"the server could not be told that {left} batches are done with: they come again "
                "when somebody goes on with this iteration",
                RuntimeWarning,
                stacklevel=3,
            )

    def __enter__(self) -> RemoteLoader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Who stops a generator in which this is was done with what it yielded last.
        self._end(in_good_order=kind is None or kind is GeneratorExit)

    def __repr__(self) -> str:
        state = "failed" if self._failure else "over" if self._over else f"after {self.sequence}"
        return f"RemoteLoader({self.iteration!r} at {self._http.url}, {state})"


def _error(failed: Failed) -> Exception:
    """Return the exception that a failure on the server is.

    Those of this project come back as what they were; all others as a `StageFailed` that names
    them: a name that arrives is never looked up anywhere else.
    """
    told = failed.error
    kind, message = str(told.get("kind") or "an error"), str(told.get("message") or "")
    known = getattr(errors, kind, None) if kind in errors.__all__ else None
    error: SplitpipeError = StageFailed(f"{kind}: {message}")
    if isinstance(known, type) and issubclass(known, SplitpipeError):
        error = known(message)
    stage, record, details = (told.get(name) for name in ("stage", "record", "details"))
    if stage:
        error.add_note(f"in stage {stage} of the server's pipeline")
    if record is not None:
        error.add_note(f"at record {record}")
    error.add_note(f"in place of batch {failed.sequence}")
    if details:
        error.add_note(f"on the server:\n{details}")
    return error
