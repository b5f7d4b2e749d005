"""Arrow's IPC files and streams, and Hugging Face datasets saved to disk.

Responsible for: recognising ``.arrow`` and ``.feather`` files and folders that ``save_to_disk``
wrote, naming their files in order, and opening them. The records are in ``arrowrecords``, which
alone imports pyarrow.

Rules:
- of a folder of Hugging Face's, ``state.json`` names the files and their order; a folder of several
  splits is refused with their names, unless ``split=`` says which;
- files of several splits in one folder are never read as one dataset.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from splitpipe.errors import FormatError
from splitpipe.formats.base import Format, Indexing, Source
from splitpipe.formats.names import needs
from splitpipe.storage import files

if TYPE_CHECKING:
    from splitpipe.formats.columnar.arrowrecords import ArrowRecords

__all__ = ["FORMAT"]

STATE = "state.json"
INFO = "dataset_info.json"
SPLITS = "dataset_dict.json"
_SUFFIXES = (".arrow", ".feather", ".ipc")
_CACHE_NBYTES = 256 << 20
_JSON_NBYTES_LIMIT = 64 << 20


def _recognises(source: Source) -> bool:
    if source.has(STATE) and b'"_data_files"' in source.head(os.path.join(source.root, STATE)):
        return True
    if source.has(SPLITS):
        return True
    return bool(source.suffixes() & set(_SUFFIXES))


def _open(
    source: Source,
    _indexing: Indexing,
    *,
    split: str | None = None,
    cache_nbytes: int = _CACHE_NBYTES,
) -> ArrowRecords:
    paths, indices = _files_of(source, split)
    with needs("pyarrow", "table", "Arrow files"):
        from splitpipe.formats.columnar.arrowrecords import ArrowRecords

    return ArrowRecords(paths, indices, cache_nbytes=cache_nbytes)


def _files_of(source: Source, split: str | None) -> tuple[list[str], list[str]]:
    """The files with the data, and those with an order of their rows, if there is one."""
    root = source.root
    if source.has(SPLITS):
        splits = _names(_read(os.path.join(root, SPLITS)).get("splits"), root)
        if split is None or split not in splits:
            raise FormatError(
                f"{root} holds the datasets {', '.join(splits)}: open one of them, "
                f"as {os.path.join(root, splits[0] if splits else 'train')} or with split=NAME"
            )
        root = os.path.join(root, split)
        return _saved(root)
    if split is not None:
        raise FormatError(f"{root} has no splits: open it without split=")
    if source.has(STATE):
        return _saved(root)
    found = [path for path in source.files() if path.lower().endswith(_SUFFIXES)]
    found = found if source.folder else source.files()
    _refuse_splits(source)
    if not found:
        raise FormatError(f"{root} has no file that ends in {', '.join(_SUFFIXES)}")
    return found, []


def _saved(root: str) -> tuple[list[str], list[str]]:
    state = _read(os.path.join(root, STATE))
    data = _listed(state.get("_data_files"), root)
    indices = state.get("_indices_data_files") or state.get("_indices_files") or []
    return data, _listed(indices, root) if indices else []


def _listed(told: Any, root: str) -> list[str]:
    """The paths of ``[{"filename": ...}]``."""
    if isinstance(told, list) and told and all(isinstance(one, dict) for one in told):
        names = _names([one.get("filename") for one in told], root)
        return [os.path.join(root, name) for name in names]
    raise FormatError(f"{os.path.join(root, STATE)} names no files: it is damaged; copy it again")


def _names(told: Any, root: str) -> list[str]:
    """Names of files or folders that lie in a folder, not elsewhere."""
    good = isinstance(told, list) and all(
        isinstance(name, str)
        and name == os.path.basename(name)
        and name not in ("", ".", "..")
        and "\0" not in name
        for name in told
    )
    if not good:
        raise FormatError(f"{root}: {told!r:.200} is no list of names of files in it")
    return list(told)


def _refuse_splits(source: Source) -> None:
    """A folder as Hugging Face's cache has it may hold the files of several splits."""
    if not source.has(INFO):
        return
    splits = _read(os.path.join(source.root, INFO)).get("splits") or {}
    if isinstance(splits, dict) and len(splits) > 1:
        raise FormatError(
            f"{source.root} holds the splits {', '.join(map(str, splits))} side by side: open the "
            "files of one of them, as a list"
        )


def _read(path: str) -> dict[str, Any]:
    try:
        document = json.loads(files.read_whole(path, limit=_JSON_NBYTES_LIMIT))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is no JSON: it was cut or is damaged; copy it again") from error
    if not isinstance(document, dict):
        raise FormatError(f"{path} is no JSON object: it is damaged; copy it again")
    return document


FORMAT = Format(
    name="arrow",
    looks_like="Arrow IPC files (.arrow, .feather), or a folder that save_to_disk wrote",
    recognises=_recognises,
    open=_open,
)
