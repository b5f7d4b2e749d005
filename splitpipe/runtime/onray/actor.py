"""What runs in an actor.

Responsible for: `WorkerActor`, whose methods its owner calls through Ray: to join the owner, and to
work.

Rules:
- an actor has one worker at a time, in its main thread, as a worker process has;
- it is told by its owner alone when to leave, and leaves with it (Ray ends the actors of a program
  that is gone);
- this module imports nothing of Ray: it is loaded in the actor by name.
"""

from __future__ import annotations

import signal
import socket

from splitpipe.runtime.onray.away import work_away
from splitpipe.runtime.onray.nearby import Door, enter
from splitpipe.runtime.onray.wire import Address
from splitpipe.runtime.seat import Seat
from splitpipe.runtime.standby import Standby
from splitpipe.runtime.worker import stand_by

__all__ = ["WorkerActor"]


class WorkerActor:
    """A worker that Ray has started.

    Args:
        name: for lists of actors.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._joined: tuple[socket.socket, socket.socket] | None = None
        self._standby: Standby | None = None

    def __repr__(self) -> str:
        return f"splitpipe {self._name}"

    def join(self, door: Door | None, number: int) -> bool:
        """Join the owner on this machine; False: it is on another one."""
        self._joined = None if door is None else enter(door, number)
        return self._joined is not None

    def attend(self) -> None:
        """Do what the owner says over the line, until it is closed."""
        assert self._joined is not None
        line, life = self._joined
        try:
            standby = Standby(line)
            owner = standby.next()
            if owner is not None:
                stand_by(owner, Seat(), standby)
            life.send(b"0")  # not lost: done
        except OSError:
            pass  # the owner is gone, or does not want it any more
        finally:
            line.close()
            life.close()

    def work(self, address: Address) -> bool:
        """Do one piece of work for the relay at `address`; return whether this process can do
        another.
        """
        if self._standby is None:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            self._standby = Standby(socket.socket())  # only to know what a stage has left behind
            self._standby.begin()
        work_away(address)
        return self._standby.clean()
