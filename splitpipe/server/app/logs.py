"""What the server writes to stderr.

Responsible for: one line an event, as text or as one JSON object.

Rules:
- nothing that looks like a token gets out, whoever wrote it into a message;
- a line is one line: what a client sends cannot begin another one.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any

__all__ = ["set_up_logs"]

_SECRET = re.compile(r"sp_([0-9a-f]{16})_[A-Za-z0-9_-]+|(?i:(bearer) +)\S+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def set_up_logs(kind: str, *, level: str) -> None:
    """Send the program's log to stderr.

    Args:
        kind: ``text`` or ``json``.
        level: the least severe that is written: ``debug``, ``info``, ``warning``, ``error``.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_AsJson() if kind == "json" else _AsText())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger("sqlalchemy").setLevel("WARNING")


def _without_secrets(text: str) -> str:
    return _SECRET.sub(lambda found: f"sp_{found[1]}_..." if found[1] else f"{found[2]} ...", text)


class _AsText(logging.Formatter):
    """The time, how severe it is, and what is said."""

    def format(self, record: logging.LogRecord) -> str:
        """One record as one line, and its traceback below."""
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        said = _CONTROL.sub(lambda found: repr(found[0])[1:-1], record.getMessage())
        text = f"{when} {record.levelname.lower():7} {said}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return _without_secrets(text)


class _AsJson(logging.Formatter):
    """One JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """One record as one line."""
        said: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        said.update(getattr(record, "fields", {}))
        if getattr(record, "request_id", None):
            said["request_id"] = record.request_id  # type: ignore[attr-defined]
        if record.exc_info:
            said["traceback"] = self.formatException(record.exc_info)
        return _without_secrets(json.dumps(said, default=str))
