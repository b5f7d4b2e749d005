"""Every Python process of a program tells what it makes, removes and kills.

Responsible for: `SITE`, the text of a ``sitecustomize.py`` that hears Python's own audit events in
each process of a family, from its first line, and notes them in one file; `Deeds`, reading that.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

__all__ = ["SITE", "Deeds"]

SITE = """
import json, os, sys

_file = os.open(os.environ["DEEDS"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

def _note(kind, *what):
    os.write(_file, json.dumps([os.getpid(), kind, *map(str, what)]).encode() + b"\\n")

def _place(path, directory=-1):
    path = os.fsdecode(path)
    if directory not in (-1, None):
        path = os.path.join(os.readlink(f"/proc/self/fd/{directory}"), path)
    return os.path.abspath(path)

def _hear(event, args):
    if event == "open" and isinstance(args[2], int) and args[2] & os.O_CREAT:
        if isinstance(args[0], (str, bytes)):
            _note("made", _place(args[0]))
    elif event in ("tempfile.mkdtemp", "tempfile.mkstemp"):
        _note("made", args[0])
    elif event == "os.mkdir":
        _note("made", _place(args[0], args[2]))
    elif event == "socket.bind" and isinstance(args[1], (str, bytes)):
        _note("made", os.fsdecode(args[1]) if args[1][:1] in ("\\0", b"\\0") else _place(args[1]))
    elif event in ("os.remove", "os.rmdir"):
        _note("removed", _place(args[0], args[1]))
    elif event == "os.rename":
        _note("removed", _place(args[0], args[2]))
        _note("removed", _place(args[1], args[3]))
    elif event == "shutil.rmtree":
        _note("removed", _place(args[0]))
    elif event in ("os.truncate", "os.chmod", "os.chown", "os.link", "os.symlink"):
        if not isinstance(args[0], int):
            _note("removed", _place(args[0]))
    elif event in ("os.kill", "os.killpg"):
        _note("killed", args[0], args[1])

_note("began")
os.register_at_fork(after_in_child=lambda: _note("began"))
sys.addaudithook(_hear)
"""


@dataclass(frozen=True)
class Deeds:
    """What a family of processes did.

    Attributes:
        pids: its members.
        made: names that it created.
        removed: names that it removed, replaced or changed.
        killed: processes that it sent signals to.
    """

    pids: frozenset[int]
    made: frozenset[str]
    removed: frozenset[str]
    killed: frozenset[int]

    @classmethod
    def read(cls, path: Path) -> Deeds:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        return cls(
            frozenset(row[0] for row in rows if row[1] == "began"),
            frozenset(row[2] for row in rows if row[1] == "made"),
            frozenset(row[2] for row in rows if row[1] == "removed"),
            frozenset(int(row[2]) for row in rows if row[1] == "killed"),
        )

    @property
    def foreign(self) -> list[str]:
        """What it removed that neither it nor a folder of it had made, and whom else it killed."""
        names = [
            name
            for name in self.removed
            if name not in self.made and not any(name.startswith(f"{one}/") for one in self.made)
        ]
        return [*names, *(f"process {pid}" for pid in self.killed - self.pids)]
