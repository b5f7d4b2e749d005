"""What it takes to listen beyond loopback.

Responsible for: saying what is missing, all of it at once, before anything listens.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path

from splitpipe.errors import SplitpipeError

__all__ = ["is_loopback", "refuse_exposure"]


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
        (True, True, False)
    """
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def refuse_exposure(host: str, *, root: Path, tokens: int, keys: bool) -> None:
    """Refuse to listen beyond loopback without what keeps strangers out.

    Args:
        host: the address that is to be listened to.
        root: the server's folder, for the message.
        tokens: how many tokens there are.
        keys: whether the feed has keys.

    Raises:
        SplitpipeError: something is missing; the message says what, and the commands that make it.
    """
    if is_loopback(host):
        return
    missing = []
    if not keys:
        missing.append(f"keys for the feed (`splitpipe keys {root}`)")
    if not tokens:
        missing.append(f"a token (`splitpipe keys {root} --token NAME --role admin`)")
    if missing:
        raise SplitpipeError(
            f"others than this machine can reach {host}: that needs {' and '.join(missing)}. "
            "Make them first, or listen to 127.0.0.1"
        )
