"""Who may do what, and from where.

Responsible for: tokens and roles (`tokens.py`), the names by which the server may be called and the
pages that may call it (`origins.py`), how often (`rates.py`), the keys of the feed's sockets
(`keys.py`), what a bind beyond loopback needs (`exposure.py`).

Rules:
- pure decisions: nothing here knows HTTP frameworks; `app` asks, and answers the client;
- a secret is compared in constant time, stored hashed, and in no message and no ``repr``.
"""

from __future__ import annotations

from splitpipe.server.security.exposure import is_loopback, refuse_exposure
from splitpipe.server.security.keys import FeedKeys, load_keys, make_keys, passing_keys
from splitpipe.server.security.origins import HostRules
from splitpipe.server.security.rates import Rates
from splitpipe.server.security.tokens import ROLES, Role, Token, Tokens, may

__all__ = [
    "ROLES",
    "FeedKeys",
    "HostRules",
    "Rates",
    "Role",
    "Token",
    "Tokens",
    "is_loopback",
    "load_keys",
    "make_keys",
    "may",
    "passing_keys",
    "refuse_exposure",
]
