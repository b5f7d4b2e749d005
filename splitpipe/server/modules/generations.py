"""Generations of a modules folder: copies that do not change.

Responsible for: making a copy of the folder under the name of its content, seeing that a copy is
what it was, and removing copies that nobody uses.

Rules:
- the name of a generation is the hash of all its files, names included: equal content is one
  generation, and one that was changed is recognised;
- a copy is made beside and renamed: it is whole, or not there;
- files and folders whose names begin with a dot, and what Python compiled, are no part of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from splitpipe.errors import Conflict, InvalidRequest, NotFound

__all__ = ["hash_of", "keep", "prune", "verified"]

_MOST_FILES = 10_000
_MOST_NBYTES = 256 << 20
_DIGITS = 32


def keep(folder: Path, kept: Path) -> str:
    """Copy the folder as it is now; return the name of the generation.

    Raises:
        InvalidRequest: there is far more in it than modules.
    """
    kept.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = kept / f".{secrets.token_hex(8)}"
    beside.mkdir(mode=0o700)
    try:
        for name in _files(folder):
            target = beside / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, target)
        generation = hash_of(beside)
        if not (kept / generation).exists():
            with contextlib.suppress(OSError):  # somebody else was quicker
                beside.rename(kept / generation)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return generation


def verified(kept: Path, generation: str) -> Path:
    """Return the folder of a generation.

    Raises:
        NotFound: it is not kept any more.
        Conflict: its files are not those that it was made of.
    """
    if len(generation) != _DIGITS or not set(generation) <= set("0123456789abcdef"):
        raise NotFound(f"{generation!r:.100} is no generation of modules")
    folder = kept / generation
    if not folder.is_dir():
        raise NotFound(
            f"generation {generation} of the modules is not kept any more; begin the iteration "
            "anew with those that there are"
        )
    if hash_of(folder) != generation:
        raise Conflict(
            f"files of generation {generation} of the modules were changed after it was made, in "
            f"{folder}; begin the iteration anew, or put back what was there"
        )
    return folder


def hash_of(folder: Path) -> str:
    """Return what stands for the files of a folder and their names."""
    made = hashlib.sha256()
    for name in _files(folder):
        content = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        made.update(f"{content} {name}\n".encode())
    return made.hexdigest()[:_DIGITS]


def prune(kept: Path, used: Collection[str]) -> None:
    """Remove the generations that are not among `used`, and what a killed server left."""
    with contextlib.suppress(FileNotFoundError):
        for path in kept.iterdir():
            own = len(path.name.lstrip(".")) in (_DIGITS, 16) and path.is_dir()
            if own and path.name not in used:
                shutil.rmtree(path, ignore_errors=True)


def _files(folder: Path) -> list[str]:
    """Return the paths of all files, in the order of their names."""
    names = sorted(_walk(folder))
    nbytes = sum((folder / name).stat().st_size for name in names)
    if len(names) > _MOST_FILES or nbytes > _MOST_NBYTES:
        raise InvalidRequest(
            f"{folder} has {len(names)} files of {nbytes} bytes together, which is more than a "
            "modules folder may have; keep data elsewhere"
        )
    return names


def _walk(folder: Path) -> Iterator[str]:
    for path, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name[0] != "." and name != "__pycache__"]
        for name in files:
            whole = Path(path, name)
            if name[0] != "." and whole.is_file():
                yield whole.relative_to(folder).as_posix()
