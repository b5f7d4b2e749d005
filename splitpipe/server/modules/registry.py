"""The modules that there are.

Responsible for: `Modules`, what the service knows of its modules folder.

Rules:
- what is in the folder counts when the service is started, and when somebody asks for a reload;
  between the two, editing a file changes nothing;
- every iteration keeps the generation that it began with.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from splitpipe.errors import NotFound
from splitpipe.server.modules.checking import check_params
from splitpipe.server.modules.describing import described
from splitpipe.server.modules.finding import INDEX
from splitpipe.server.modules.generations import keep, prune, verified

__all__ = ["Modules"]


class Modules:
    r"""Filters, categorizers, collaters and preprocessors by name.

    Args:
        folder: where the operator places files; None: there are none.
        kept: where generations are kept; it is made.
        file_s: most seconds that one file may take to be imported.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> root = Path(tempfile.mkdtemp())
        >>> (root / "modules").mkdir()
        >>> _ = (root / "modules" / "mine.py").write_text(
        ...     "from splitpipe.server.modules import filter\n"
        ...     "@filter\n"
        ...     "def long_enough(sample, *, least: int = 10) -> bool:\n"
        ...     "    return len(sample['text']) >= least\n"
        ... )
        >>> modules = Modules(root / "modules", root / "kept")
        >>> modules.reload()
        >>> [(one["kind"], one["name"]) for one in modules.listing()], modules.errors
        ([('filter', 'long_enough')], ())
    """

    def __init__(self, folder: Path | None, kept: Path, *, file_s: float = 30.0) -> None:
        self._folder = folder
        self._kept = kept
        self._file_s = file_s
        self._loading = threading.Lock()
        self._now: tuple[str | None, dict[str, Any]] = None, {"modules": [], "errors": []}

    @property
    def generation(self) -> str | None:
        """The generation that new iterations use; None before anything was loaded."""
        return self._now[0]

    @property
    def errors(self) -> Sequence[dict[str, Any]]:
        """What is wrong with files: each with ``file``, ``error`` and ``traceback``."""
        return tuple(self._now[1]["errors"])

    def listing(self, kind: str | None = None) -> Sequence[dict[str, Any]]:
        """Return the modules, of one kind or all: each with ``name``, ``kind``, ``doc``,
        ``parameters``, ``file`` and ``line``; see `parameters_of` for the parameters.
        """
        modules = self._now[1]["modules"]
        return [one for one in modules if kind is None or one["kind"] == kind]

    def load(self) -> None:
        """Take what is in the folder, at the start of a service. What was known of the very same
        files before is taken for granted, unless something was wrong with them.
        """
        self._load(again=False)

    def reload(self) -> None:
        """Take what is in the folder now. Iterations that were begun are not touched."""
        self._load(again=True)

    def _load(self, *, again: bool) -> None:
        with self._loading:
            if self._folder is None or not self._folder.is_dir():
                self._now = None, {"modules": [], "errors": []}
                return
            generation = keep(self._folder, self._kept)
            copy = self._kept / generation
            told = None if again else _read(copy / INDEX)
            if told is None or told["errors"]:
                told = described(copy, file_s=self._file_s)
                _write(copy / INDEX, told)
            self._now = generation, told

    def path_of(self, generation: str | None) -> Path | None:
        """Return the folder of a generation, for the process that uses it.

        Raises:
            NotFound: it is not kept any more.
            Conflict: its files were changed.
        """
        return None if generation is None else verified(self._kept, generation)

    def check(self, kind: str, name: str, params: Mapping[str, Any]) -> None:
        """See that there is such a module, and that it takes these values.

        Raises:
            NotFound: there is none; the message says what is like it, or why its file is not here.
            InvalidRequest: a value does not fit.
        """
        for module in self.listing(kind):
            if module["name"] == name:
                check_params(module["parameters"], params, f"{kind} {name!r}")
                return
        known = ", ".join(one["name"] for one in self.listing(kind)) or "none"
        broken = ", ".join(sorted({one["file"] for one in self.errors}))
        hint = f"; {broken} could not be used: see the list of modules" if broken else ""
        raise NotFound(f"there is no {kind} {name!r}; there are: {known}{hint}")

    def prune(self, used: Collection[str]) -> None:
        """Forget the generations that no iteration uses; the present one is kept."""
        with self._loading:
            now = self.generation
            prune(self._kept, {*used, *([] if now is None else [now])})

    def list(self) -> dict[str, Any]:
        """Return all of it in values of JSON: ``modules``, ``errors`` and ``generation``."""
        generation, told = self._now
        return {"modules": told["modules"], "errors": told["errors"], "generation": generation}


def _read(path: Path) -> dict[str, Any] | None:
    try:
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return told


def _write(path: Path, told: Mapping[str, Any]) -> None:
    beside = path.with_name(f".{secrets.token_hex(8)}")
    beside.write_text(json.dumps(told), encoding="utf-8")
    os.replace(beside, path)
