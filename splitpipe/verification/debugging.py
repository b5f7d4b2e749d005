"""Stopping where a stage begins with an item.

Responsible for: `StageDebugger`, Python's own debugger, which lets everything run until it comes to
the first line of a stage's code, and stops there.
"""

from __future__ import annotations

import pdb
from collections.abc import Iterable
from types import CodeType, FrameType
from typing import Any

__all__ = ["StageDebugger"]


class StageDebugger(pdb.Pdb):
    """A debugger that stops in the first stage that runs.

    Args:
        codes: of the stages.
        options: of `pdb.Pdb`.
    """

    def __init__(self, codes: Iterable[CodeType], **options: Any) -> None:
        super().__init__(**options)
        self._codes = frozenset(codes)
        self._waiting = True
        self.prompt = "(splitpipe) "

    @property
    def stopped(self) -> bool:
        """Whether it has come to a stage."""
        return not self._waiting

    def stop_here(self, frame: FrameType) -> bool:
        return False if self._waiting else bool(super().stop_here(frame))

    def break_anywhere(self, frame: FrameType) -> bool:
        if self._waiting:
            return frame.f_code in self._codes
        return bool(super().break_anywhere(frame))

    def break_here(self, frame: FrameType) -> bool:
        if not self._waiting:
            return bool(super().break_here(frame))
        if frame.f_code in self._codes:
            self._waiting = False
            self.set_step()
            return True
        return False
