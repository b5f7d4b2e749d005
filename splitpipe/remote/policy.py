"""How the bytes of a remote dataset are fetched, as numbers.

Responsible for: `Policy`: how much is asked for in one request, and how far ahead of what is read.
What a policy costs is said by ``plan``.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Policy"]


@dataclass(frozen=True, slots=True)
class Policy:
    """How a remote dataset is fetched.

    Attributes:
        extent_nbytes: most bytes of one request.
        near_nbytes: how much comes together with what is waited for, where the cache keeps it until
            it is needed.
        ahead_nbytes: how much is fetched before it is asked for; 0: nothing is.
        neighbours: whether what is fetched ahead comes with all that lies in the same extent:
            fewer requests, where the cache keeps it until it is needed.
    """

    extent_nbytes: int = 8 << 20
    near_nbytes: int = 2097152
    ahead_nbytes: int = 64 << 20
    neighbours: bool = True
