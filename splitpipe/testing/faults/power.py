"""What a disk may hold after the power failed.

Responsible for: `Recorder`, which notes what a session asked of its disk and in which order; and
for `PowerFailure`, one moment of that: which operations are on the disk for certain, which may be,
and the `Disk` that results from keeping some of them.

The rules of the simulated disk are those that POSIX promises, and no more:
- what was written to a file, and its size, is certain once the file was synced, and not before: any
  part of it may be there without any other, in any order, also single sectors of one write;
- a name (made, removed, replaced) is certain once its directory was synced. Names are kept in the
  order in which they were changed (``ordered``, as file systems with a journal do), or any of
  them without any other;
- replacing a name is one operation: the old file or the new one.

What is written by others than ``os`` functions, SQLite for one, is noted when the file is synced
or renamed; until then nothing is known of it, and nothing of it is kept.
"""

from __future__ import annotations

import os
import random
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from splitpipe.testing.faults.tap import Call

__all__ = ["Disk", "Operation", "PowerFailure", "Recorder"]

SECTOR_NBYTES = 512

_Tree = dict[str, int]
_Nodes = dict[int, bytearray | _Tree]


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that a session did to its disk.

    Attributes:
        kind: ``write``, ``resize``, ``names``, ``sync`` or ``mark``.
        node: the file or, for ``names`` and its ``sync``, the directory.
        offset: where was written; the new size.
        data: what was written.
        names: what names became of: a file or directory, or nothing.
        call: how it came about, for people.
    """

    kind: str
    node: int
    offset: int = 0
    data: bytes = b""
    names: tuple[tuple[str, int | None], ...] = ()
    call: str = ""


@dataclass(frozen=True, slots=True)
class Disk:
    """What lies below a directory.

    Attributes:
        files: path from the root -> content.
        directories: paths from the root.
    """

    files: dict[str, bytes]
    directories: frozenset[str]

    def put(self, root: Path) -> None:
        """Make a directory look like this, whatever was there before."""
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        for name in sorted(self.directories):
            (root / name).mkdir()
        for name, content in self.files.items():
            (root / name).write_bytes(content)

    @property
    def identity(self) -> int:
        """Equal for equal disks."""
        return hash((tuple(sorted(self.files.items())), self.directories))


class Recorder:
    """A handler for a `Tap`: lets everything pass and notes what it did.

    Args:
        root: the tap's directory; what lies in it at the beginning is certain.

    Attributes:
        operations: what was done so far.

    Example:
        >>> import tempfile, splitpipe as sp
        >>> from splitpipe.testing.faults import Recorder, Tap
        >>> root = tempfile.mkdtemp()
        >>> recorder = Recorder(root)
        >>> with Tap(root, recorder):
        ...     sp.write_split_data(f"{root}/ds", [b"abc"], splits=1)
        >>> recorder.mark()
        >>> [sorted(failure.kept([]).files) for failure in recorder.failures()][0]
        []
        >>> sorted(list(recorder.failures())[-1].kept([]).files)[:2]
        ['ds/splitpipe.json', 'ds/v0001-c000-b00000.bin']
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self._root = Path(root)
        self._nodes: _Nodes = {0: {}}
        self._count = 0
        self._start: _Nodes = {}
        self.operations: list[Operation] = []
        self._load(self._root, 0)
        self._start = _copied(self._nodes)

    def _load(self, path: Path, node: int) -> None:
        tree = self._nodes[node]
        assert isinstance(tree, dict)
        for entry in sorted(path.iterdir()):
            child = self._new({} if entry.is_dir() else bytearray(entry.read_bytes()))
            tree[entry.name] = child
            if entry.is_dir():
                self._load(entry, child)

    def _new(self, content: bytearray | _Tree) -> int:
        self._count += 1
        self._nodes[self._count] = content
        # What is made later is empty at the beginning, and has no name.
        self._start[self._count] = {} if isinstance(content, dict) else bytearray()
        return self._count

    def mark(self) -> None:
        """Note that something was acknowledged here: from now on it must not be lost."""
        self.operations.append(Operation("mark", 0))

    # -- noting ----------------------------------------------------------------------------

    def __call__(self, call: Call, proceed: Callable[[], Any]) -> Any:
        """Let a call pass, and note it."""
        note = getattr(self, f"_{call.name.removeprefix('os.')}", None)
        if note is None:
            return proceed()
        fresh = call.name in ("os.open", "os.mkdir") and not os.path.lexists(call.path)
        if call.name in ("os.fsync", "os.fdatasync", "os.replace", "os.rename"):
            self._note_unseen(call.args[0] if "sync" not in call.name else call.path)
        result = proceed()
        note(call, result, fresh)
        return result

    def _do(self, kind: str, node: int, call: Call, **details: Any) -> None:
        operation = Operation(kind, node, call=str(call), **details)
        _apply(self._nodes, operation)
        self.operations.append(operation)

    def _place(self, path: str | os.PathLike[str]) -> tuple[int, str]:
        """The node of a path's directory, and its name there."""
        parts = Path(os.path.abspath(path)).relative_to(self._root).parts
        node = 0
        for part in parts[:-1]:
            tree = self._nodes[node]
            assert isinstance(tree, dict)
            node = tree[part]
        return node, parts[-1] if parts else ""

    def _node(self, path: str | os.PathLike[str]) -> int:
        directory, name = self._place(path)
        tree = self._nodes[directory]
        assert isinstance(tree, dict)
        return tree[name] if name else directory

    def _open(self, call: Call, descriptor: int, fresh: bool) -> None:
        if fresh:
            directory, name = self._place(call.path)
            node = self._new(bytearray())
            self._do("names", directory, call, names=((name, node),))
        elif call.args[1] & os.O_TRUNC:
            self._do("resize", self._node(call.path), call, offset=0)

    def _mkdir(self, call: Call, _: None, fresh: bool) -> None:
        directory, name = self._place(call.path)
        self._do("names", directory, call, names=((name, self._new({})),))

    def _pwrite(self, call: Call, done: int, fresh: bool) -> None:
        data = bytes(memoryview(call.args[1]).cast("B")[:done])
        self._do("write", self._node(call.path), call, offset=call.args[2], data=data)

    def _ftruncate(self, call: Call, _: None, fresh: bool) -> None:
        self._do("resize", self._node(call.path), call, offset=call.args[1])

    _truncate = _ftruncate

    def _fsync(self, call: Call, _: None, fresh: bool) -> None:
        self._do("sync", self._node(call.path), call)

    _fdatasync = _fsync

    def _replace(self, call: Call, _: None, fresh: bool) -> None:
        (source, old), (target, new) = map(self._place, call.args[:2])
        if source != target:
            raise ValueError("renaming from one directory into another is not simulated")
        tree = self._nodes[source]
        assert isinstance(tree, dict)
        self._do("names", source, call, names=((old, None), (new, tree[old])))

    _rename = _replace

    def _unlink(self, call: Call, _: None, fresh: bool) -> None:
        directory, name = self._place(call.path)
        self._do("names", directory, call, names=((name, None),))

    _remove = _rmdir = _unlink

    def _note_unseen(self, path: str) -> None:
        """Note what was written to a file behind our back."""
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return
        if fresh := not self._knows(path):
            directory, name = self._place(path)
            names = ((name, self._new(bytearray())),)
            self.operations.append(made := Operation("names", directory, names=names))
            _apply(self._nodes, made)
        node = self._node(path)
        content = Path(path).read_bytes()
        if fresh or self._nodes[node] != bytearray(content):
            for operation in (
                Operation("resize", node, offset=0),
                Operation("write", node, data=content),
            ):
                self.operations.append(operation)
                _apply(self._nodes, operation)

    def _knows(self, path: str) -> bool:
        directory, name = self._place(path)
        tree = self._nodes[directory]
        return isinstance(tree, dict) and name in tree

    # -- failing ---------------------------------------------------------------------------

    def failures(self) -> Iterator[PowerFailure]:
        """The power fails before the first operation, after each, and after the last."""
        for count in range(len(self.operations) + 1):
            yield PowerFailure(self._start, self.operations[:count])


class PowerFailure:
    """One moment at which the power failed.

    Args:
        start: what was there before the first operation.
        operations: what was done until then.

    Attributes:
        acknowledged: how many marks were set until then.
        pending: the operations that may be lost.
    """

    def __init__(self, start: _Nodes, operations: Sequence[Operation]) -> None:
        self._start = start
        self.acknowledged = sum(operation.kind == "mark" for operation in operations)
        self._certain: list[Operation] = []
        self.pending: list[Operation] = []
        synced: set[int] = set()
        for operation in reversed(operations):
            if operation.kind == "sync":
                synced.add(operation.node)
            elif operation.kind != "mark":
                target = self._certain if operation.node in synced else self.pending
                target.append(operation)
        self._certain.reverse()
        self.pending.reverse()

    def kept(self, operations: Sequence[Operation]) -> Disk:
        """The disk if these of the pending operations reached it, in this order."""
        nodes = _copied(self._start)
        for operation in (*self._certain, *operations):
            _apply(nodes, operation)
        files: dict[str, bytes] = {}
        directories: set[str] = set()
        _collect(nodes, 0, "", files, directories)
        return Disk(files, frozenset(directories))

    def disks(self, rng: random.Random, *, samples: int, ordered: bool) -> Iterator[Disk]:
        """Disks that may be found: the extreme ones, and some by chance.

        Args:
            rng: chooses.
            samples: how many by chance.
            ordered: whether names are kept in the order in which they were changed.
        """
        data = [operation for operation in self.pending if operation.kind != "names"]
        names = [operation for operation in self.pending if operation.kind == "names"]
        yield self.kept([])
        if not self.pending:
            return
        yield self.kept(self.pending)
        yield self.kept(names)
        yield self.kept(data)
        # Every file has its size, and none of its bytes.
        yield self.kept([*names, *map(_hollow, data)])
        for _ in range(samples):
            some = self._some_names(rng, names, ordered=ordered)
            if rng.random() < 0.5:
                # All but one, or only one: what a rule about order would be broken by.
                alone = rng.choice(self.pending)
                most = [operation for operation in self.pending if operation is not alone]
                if not ordered or alone.kind != "names":
                    yield self.kept(rng.choice(([alone], most)))
            part = [operation for operation in data if rng.random() < 0.6]
            rng.shuffle(part)
            yield self.kept([*some, *(_torn(operation, rng) for operation in part)])

    def _some_names(
        self, rng: random.Random, names: list[Operation], *, ordered: bool
    ) -> list[Operation]:
        if ordered:
            return names[: rng.randint(0, len(names))]
        return [operation for operation in names if rng.random() < 0.6]


def _hollow(operation: Operation) -> Operation:
    return Operation(operation.kind, operation.node, operation.offset, bytes(len(operation.data)))


def _torn(operation: Operation, rng: random.Random) -> Operation:
    """A write of which some sectors were lost, in half of the cases."""
    if operation.kind != "write" or rng.random() < 0.5:
        return operation
    data = bytearray(operation.data)
    junk = rng.choice((b"\x00", b"\xff"))
    # Sectors are counted from the beginning of the file.
    first = -(operation.offset % SECTOR_NBYTES)
    for start in range(first, len(data), SECTOR_NBYTES):
        if rng.random() < 0.5:
            begin, end = max(0, start), min(len(data), start + SECTOR_NBYTES)
            data[begin:end] = junk * (end - begin)
    return Operation("write", operation.node, operation.offset, bytes(data))


def _copied(nodes: _Nodes) -> _Nodes:
    return {
        node: bytearray(content) if isinstance(content, bytearray) else dict(content)
        for node, content in nodes.items()
    }


def _apply(nodes: _Nodes, operation: Operation) -> None:
    if operation.kind == "names":
        tree = nodes[operation.node]
        assert isinstance(tree, dict)
        for name, node in operation.names:
            if node is None:
                tree.pop(name, None)
            else:
                tree[name] = node
        return
    if operation.kind == "sync":
        return
    content = nodes[operation.node]
    assert isinstance(content, bytearray)
    if operation.kind == "resize":
        del content[operation.offset :]
        content.extend(bytes(operation.offset - len(content)))
        return
    content.extend(bytes(max(0, operation.offset - len(content))))
    content[operation.offset : operation.offset + len(operation.data)] = operation.data


def _collect(
    nodes: _Nodes, node: int, prefix: str, files: dict[str, bytes], directories: set[str]
) -> None:
    tree = nodes[node]
    assert isinstance(tree, dict)
    for name, child in tree.items():
        content = nodes[child]
        if isinstance(content, dict):
            directories.add(f"{prefix}{name}")
            _collect(nodes, child, f"{prefix}{name}/", files, directories)
        else:
            files[f"{prefix}{name}"] = bytes(content)
