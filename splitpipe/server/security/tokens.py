"""Tokens: who somebody is, and what they may do.

Responsible for: making, checking, listing and deleting tokens; the order of the roles.

Rules:
- a token is ``sp_ID_SECRET``: an id that finds its row, and 256 random bits that prove it. Only the
  SHA-256 of the whole is stored: with that many random bits no slower hash adds anything;
- comparison takes the same time wherever two hashes differ, and an unknown id costs one, too;
- the text of a token is given out once, by `Tokens.create`.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import threading
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from sqlalchemy import delete, insert, select, update

from splitpipe.server.state import Database, new_id, now_s
from splitpipe.server.state.tables import tokens

__all__ = ["ROLES", "Role", "Token", "Tokens", "may"]

Role = Literal["read", "run", "admin"]
"""``read`` looks, ``run`` also makes things go, ``admin`` also deletes and gives out tokens."""
ROLES: Final[tuple[Role, ...]] = get_args(Role)

_SHAPE = re.compile(r"sp_([0-9a-f]{16})_[A-Za-z0-9_-]{43}")
_NOBODY = "0" * 64
_REMEMBERED_S = 2.0
"""How long a token that was right is right without asking the database."""
_REMEMBERED = 1024
_USED_EVERY_S = 60.0


@dataclass(frozen=True)
class Token:
    """What is known of a token, which is everything but itself.

    Attributes:
        id: finds it.
        name: what its owner calls it.
        role: what it allows.
        created_at: seconds since 1970, UTC.
        expires_at: from when it is worth nothing, or None.
        last_used_at: to a minute, or None.
    """

    id: str
    name: str
    role: Role
    created_at: float
    expires_at: float | None
    last_used_at: float | None


def may(role: Role | None, needed: Role) -> bool:
    """Whether a role allows what needs another one.

    Example:
        >>> may("run", "read"), may("read", "run"), may(None, "read")
        (True, False, False)
    """
    return role is not None and ROLES.index(role) >= ROLES.index(needed)


class Tokens:
    """The tokens of a server. Safe to use from several threads.

    Args:
        database: where they are kept.

    Example:
        >>> from splitpipe.server.state import open_database
        >>> with open_database("sqlite://") as database:
        ...     tokens = Tokens(database)
        ...     token, text = tokens.create("laptop", role="run")
        ...     tokens.check(text) == token, tokens.check(text[:-1] + "?")
        (True, None)
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._right: dict[bytes, tuple[Token, float]] = {}

    def create(
        self, name: str, *, role: Role, expires_in_s: float | None = None
    ) -> tuple[Token, str]:
        """Make a token.

        Args:
            name: what its owner calls it; need not be unique.
            role: what it allows.
            expires_in_s: how long it is worth something; for ever unless said.

        Returns:
            What is known of it, and its text, which nobody can be told again.
        """
        identity, now = new_id(), now_s()
        text = f"sp_{identity}_{secrets.token_urlsafe(32)}"
        expires_at = None if expires_in_s is None else now + expires_in_s
        token = Token(identity, name, role, now, expires_at, None)
        with self._database.write() as connection:
            connection.execute(insert(tokens).values(**vars(token), hash=_hash(text)))
        return token, text

    def remembered(self, text: str) -> Token | None:
        """What `check` said of a token a moment ago, without asking the database."""
        now = now_s()
        with self._lock:
            token, until = self._right.get(_digest(text), (None, 0.0))
        if token is None or until < now or _is_over(token, now):
            return None
        return token

    def check(self, text: str) -> Token | None:
        """Return what is known of a token, or None where it is worth nothing."""
        token, now = self.remembered(text), now_s()
        if token is not None:
            return token
        token = self._look_up(text, now)
        if token is None or _is_over(token, now):
            return None
        with self._lock:
            if len(self._right) >= _REMEMBERED:
                self._right.clear()
            self._right[_digest(text)] = token, now + _REMEMBERED_S
        return token

    def list(self) -> list[Token]:
        """Return all tokens, the oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(select(tokens).order_by(tokens.c.created_at, tokens.c.id))
            return [_token(row._mapping) for row in rows]

    def delete(self, identity: str) -> bool:
        """Make a token worthless at once; return whether there was one."""
        with self._database.write() as connection:
            found = connection.execute(delete(tokens).where(tokens.c.id == identity)).rowcount
        with self._lock:
            self._right.clear()
        return found > 0

    def _look_up(self, text: str, now: float) -> Token | None:
        shaped = _SHAPE.fullmatch(text)
        with self._database.read() as connection:
            wanted = tokens.c.id == (shaped[1] if shaped else "")
            row = connection.execute(select(tokens).where(wanted)).first()
        stored = _NOBODY if row is None else str(row._mapping["hash"])
        if not hmac.compare_digest(stored, _hash(text)) or row is None:
            return None
        token = _token(row._mapping)
        if token.last_used_at is None or token.last_used_at + _USED_EVERY_S < now:
            with self._database.write() as connection:
                used = update(tokens).where(tokens.c.id == token.id).values(last_used_at=now)
                connection.execute(used)
        return token


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _hash(text: str) -> str:
    return _digest(text).hex()


def _is_over(token: Token, now: float) -> bool:
    return token.expires_at is not None and token.expires_at <= now


def _token(row: Any) -> Token:
    return Token(
        id=row["id"],
        name=row["name"],
        role=row["role"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        last_used_at=row["last_used_at"],
    )
