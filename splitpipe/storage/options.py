"""What a writer may be told.

Responsible for: `WriterOptions`, and making of them, and of the other arguments of a writer, what
they mean or a ``FormatError``.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Mapping, Sequence
from typing import Any, SupportsIndex, TypedDict

from splitpipe.codecs import Zstd
from splitpipe.errors import FormatError
from splitpipe.schema import BARE, Schema
from splitpipe.storage.format import MAX_BINS

__all__ = [
    "FOR_STORES",
    "Compression",
    "WriterOptions",
    "checked_bins",
    "checked_keys",
    "checked_options",
]

# Kinds of columns that gain by compression: media are compressed, scalars too short.
_WORTHWHILE = ("bytes", "str", "json", "ndarray", "pickle")


class WriterOptions(TypedDict, total=False):
    """What a `DatasetWriter` may be told beyond the usual.

    Attributes:
        dealing: order in which the bins take records, a permutation of ``range(bins)``.
            Default: by number.
        keys: ``None`` lets records have a key or none, ``True`` demands one of each,
            ``"auto"`` makes one for each that has none.
        metadata: names in the metadata of records that shall be typed and indexed, for quick
            questions: name -> ``int64``, ``float64``, ``str``, ``bool`` or ``json``.
        compression: ``"zstd"`` or a `Zstd` for every column that gains by it (all but
            scalars and media), or a mapping from column to one of them.
        storage_options: for a dataset in a store: credentials and settings of it; in no message,
            and not pickled.
        bin_nbytes: there, about how large a bin becomes before it is uploaded; 64 MiB unless said.
        spool_dir: there, the folder of this machine in which bins are until they are uploaded; the
            one for temporary files unless said. They take about twice ``bins * bin_nbytes``.
    """

    dealing: Sequence[int] | None
    keys: bool | str | None
    metadata: Mapping[str, str] | None
    compression: str | Zstd | Mapping[str, str | Zstd] | None
    storage_options: Mapping[str, Any] | None
    bin_nbytes: int
    spool_dir: str | os.PathLike[str]


FOR_STORES = ("storage_options", "bin_nbytes", "spool_dir")
"""Options that only a dataset in a store has."""


def checked_options(options: Mapping[str, Any], bins: int) -> None:
    """Raise unless these are options of a writer, and fit a number of bins."""
    unknown = set(options) - set(WriterOptions.__annotations__)
    if unknown:
        raise TypeError(f"a DatasetWriter has no option {min(unknown)!r}")
    dealing = options.get("dealing")
    if dealing is not None and sorted(dealing) != list(range(bins)):
        raise FormatError("dealing must name every bin once, counted from 0")


def checked_bins(value: SupportsIndex, name: str = "bins") -> int:
    """A number of bins, or ``FormatError``."""
    try:
        bins = operator.index(value)
    except TypeError:
        bins = 0
    if isinstance(value, bool) or not 1 <= bins <= MAX_BINS:
        raise FormatError(f"{name} must be an integer from 1 to {MAX_BINS}, not {value!r}")
    return bins


def checked_keys(keys: Any) -> bool | str | None:
    """What is wanted of keys: ``None``, ``True`` or ``"auto"``."""
    if keys is None or keys is True:
        return keys
    if keys != "auto":
        raise FormatError(f"keys must be None, True or 'auto', not {keys!r}")
    return "auto"


class Compression:
    """Which columns of a writer are compressed, and how.

    Args:
        wanted: as `WriterOptions` has it.

    Raises:
        FormatError: it is no compression.
    """

    def __init__(self, wanted: str | Zstd | Mapping[str, str | Zstd] | None) -> None:
        self._some: dict[str, Zstd] | None = None
        self._all: Zstd | None = None
        if isinstance(wanted, Mapping):
            self._some = {name: _checked_zstd(said) for name, said in wanted.items()}
        elif wanted is not None:
            self._all = _checked_zstd(wanted)

    def applied(self, schema: Schema) -> Schema:
        """The schema, with the columns compressed that shall be."""
        if self._some is not None:
            chosen = list(schema.checked_names(self._some))
        elif self._all is not None:
            chosen = [name for name, field in schema.items() if field.kind in _WORTHWHILE]
        else:
            return schema
        fields = {n: f.compressed() if n in chosen else f for n, f in schema.items()}
        return Schema(fields[BARE]) if schema.bare else Schema(fields)

    def of(self, schema: Schema | None) -> dict[str, Zstd]:
        """How each column of a schema is compressed, if it is."""
        if self._some is not None:
            return self._some
        return dict.fromkeys(schema or (), self._all or Zstd())


def _checked_zstd(said: Any) -> Zstd:
    if isinstance(said, Zstd):
        return said
    if said != "zstd":
        raise FormatError(f"compression must be 'zstd' or sp.Zstd(...), not {said!r}")
    return Zstd()
