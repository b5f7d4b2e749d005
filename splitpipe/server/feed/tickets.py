"""Tickets: what lets a client in.

Responsible for: `Tickets`, those that an engine accepts, and `new_ticket`, for whoever gives one.

Rules:
- a ticket is 256 bits by chance. An engine is told its hash only, and compares hashes: how long a
  look-up takes says nothing about a ticket;
- it is good for one rank, client and session, until its time is over; who is inside stays.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import NamedTuple

__all__ = ["Tickets", "hash_of", "new_ticket"]

TICKETS = 16_384
"""How many are kept; the oldest go first."""


class Grant(NamedTuple):
    """What a ticket is good for."""

    rank: int
    client: str
    session: str
    until_s: float


def new_ticket() -> str:
    """A ticket, for one client only, and for no log.

    Example:
        >>> len(new_ticket())
        43
    """
    return secrets.token_urlsafe(32)


def hash_of(ticket: str) -> str:
    """What may be told of it."""
    return hashlib.sha256(ticket.encode("utf-8", "surrogatepass")).hexdigest()


class Tickets:
    """Those that are good.

    Example:
        >>> tickets = Tickets()
        >>> tickets.add(hash_of("secret"), Grant(0, "", "session", until_s=10.0))
        >>> tickets.good("secret", Grant(0, "", "session", until_s=9.0))
        True
        >>> tickets.good("secret", Grant(1, "", "session", until_s=9.0))
        False
        >>> tickets.good("secret", Grant(0, "", "session", until_s=11.0))
        False
    """

    def __init__(self) -> None:
        self._known: dict[str, Grant] = {}

    def add(self, hashed: str, grant: Grant) -> None:
        """Accept a ticket of this hash."""
        self._known.pop(hashed, None)
        self._known[hashed] = grant
        while len(self._known) > TICKETS:
            del self._known[next(iter(self._known))]

    def good(self, ticket: str, asked: Grant) -> bool:
        """Whether it is good for this, at the time `asked.until_s`."""
        grant = self._known.get(hash_of(ticket))
        return grant is not None and grant[:3] == asked[:3] and asked.until_s <= grant.until_s
