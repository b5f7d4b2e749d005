"""Ctrl-C at any place of a call.

Responsible for: `interrupted`, which calls the handler of Ctrl-C where Python would: when a
function begins, and when a call of C has returned, before anything is made of its result;
`at_each_place`, which does so at one after the other.
"""

from __future__ import annotations

import inspect
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import splitpipe

__all__ = ["at_each_place", "interrupted"]

PACKAGE = Path(splitpipe.__file__).parent


def interrupted(call: Callable[[], Any], place: int, *, within: str = "") -> bool:
    """Call, and interrupt it; return False if it was over before.

    Args:
        call: what to interrupt, in this thread.
        place: how many places are passed before.
        within: only places in this folder or module of the package count.

    Raises:
        AssertionError: the interrupt was lost.
    """
    folder = str(PACKAGE / within)
    left, pid = place, os.getpid()
    where = ""

    def look(frame: FrameType, event: str, _: Any) -> None:
        nonlocal left, where
        code = frame.f_code
        if os.getpid() != pid:
            sys.setprofile(None)  # a forked child
            return
        # A generator that is closed is called, too, but handles no signal before it ends.
        begins = event == "call" and not code.co_flags & inspect.CO_GENERATOR
        if (begins or event == "c_return") and code.co_filename.startswith(folder):
            left -= 1
            if left < 0 and not _is_finalizer(frame):
                sys.setprofile(None)
                where = f"{event} in {code.co_filename}:{frame.f_lineno}"
                handler = signal.getsignal(signal.SIGINT)
                assert callable(handler)
                handler(signal.SIGINT, frame)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        sys.setprofile(look)
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.setprofile(None)
        signal.signal(signal.SIGINT, before)
    assert not where, f"Ctrl-C was lost: {where}"
    return False


def _is_finalizer(frame: FrameType | None) -> bool:
    """Whether Python would print and forget what is raised."""
    while frame is not None and frame.f_code.co_name != "__del__":
        frame = frame.f_back
    return frame is not None


def at_each_place(attempt: Callable[[int], bool], *, step: int = 1) -> None:
    """Try what is interrupted at one place after the other, until it was over before.

    Args:
        attempt: is given a place; returns what `interrupted` does.
        step: one place in so many is tried, all with ``SPLITPIPE_INTERRUPTS=all``.
    """
    if os.environ.get("SPLITPIPE_INTERRUPTS") == "all":
        step = 1
    place = 0
    while attempt(place):
        place += step
    assert place > 20, "there is next to nothing to interrupt: is the folder right?"
