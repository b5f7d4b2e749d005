"""What samples look like: how long they are, what stands between documents, which arrays they have.

Responsible for: `Packing` as a value, checked as a whole before anything is read or written, and
the schema that follows from it.

Rules:
- every id that will be stored (of the vocabulary, end, begin, padding) fits the dtype, or nothing
  is written;
- which dtype is chosen follows from the vocabulary alone, never from the texts.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from splitpipe.errors import FormatError
from splitpipe.schema import Schema, ndarray

__all__ = [
    "ARRAYS",
    "MOST_IDS",
    "PLAIN",
    "LossLike",
    "LossRule",
    "Packing",
    "check_count",
    "make_packing",
]

# Ids are collected in 32 bits; no vocabulary comes near.
MOST_IDS: Final = 1 << 32
# The type of a document that is plain text, not made of typed parts.
PLAIN: Final = "text"
ARRAYS: Final = ("document", "position", "local_position")
REMAINDERS: Final = ("drop", "keep", "pad")

LossLike = str | Collection[str] | Mapping[str, bool]


@dataclass(frozen=True, slots=True)
class LossRule:
    """Which parts of a document count for the loss.

    Attributes:
        counting: types that do.
        others: types that do not; ``None`` for all others, known or not.
    """

    counting: frozenset[str]
    others: frozenset[str] | None = None

    @classmethod
    def parse(cls, given: LossLike) -> LossRule:
        """The rule that is meant by a type, several types, or a mapping type -> whether it counts.

        Raises:
            FormatError: there is something else than types in it, or no type that counts.

        Example:
            >>> LossRule.parse("assistant") == LossRule.parse(["assistant"])
            True
            >>> sorted(LossRule.parse({"assistant": True, "user": False}).others)
            ['user']
        """
        types: Iterable[Any] = [given] if isinstance(given, str) else given
        named = list(types)
        if not all(isinstance(name, str) for name in named):
            raise FormatError(f"loss has names of part types in it, not {given!r}")
        if not isinstance(given, Mapping):
            rule = cls(frozenset(named))
        else:
            rule = cls(
                frozenset(name for name in named if given[name]),
                frozenset(name for name in named if not given[name]),
            )
        if not rule.counting:
            raise FormatError(f"loss={given!r}: no part would count for the loss")
        return rule

    def counts(self, kind: str) -> bool:
        """Whether parts of a type count.

        Raises:
            FormatError: all types were named, and this one was not.
        """
        if kind in self.counting:
            return True
        if self.others is not None and kind not in self.others:
            known = ", ".join(map(repr, sorted(self.counting | self.others)))
            raise FormatError(f"part type {kind!r} is not named in loss=; named: {known}")
        return False


@dataclass(frozen=True, slots=True)
class Packing:
    """What samples look like; made by `make_packing`.

    Attributes:
        length: tokens of a sample; ``None`` for one sample of any length a document.
        eos: id after every document, if any.
        bos: id before every document, if any.
        pad: id that fills the last sample, when it is to be filled.
        dtype: of the tokens.
        limit: ids are below this.
        remainder: ``drop``, ``keep`` or ``pad``.
        loss: which parts count; ``None`` for no mask.
        arrays: further arrays, of `ARRAYS`.
    """

    length: int | None
    eos: int | None = None
    bos: int | None = None
    pad: int | None = None
    dtype: str = "uint32"
    limit: int = MOST_IDS
    remainder: str = "drop"
    loss: LossRule | None = None
    arrays: tuple[str, ...] = ()

    def dtypes(self, documents: int | None = None) -> dict[str, str]:
        """The arrays of a sample and their dtypes, in order.

        Args:
            documents: how many there are, if that is known.
        """
        # Signed, with room for the -1 of padding; 32 bits wherever that is enough.
        few = documents is not None and documents <= np.iinfo(np.int32).max
        found = {"tokens": self.dtype}
        if self.loss is not None:
            found["loss_mask"] = "uint8"
        for name in self.arrays:
            found[name] = "int64" if name == "document" and not few else "int32"
        return found

    def schema(self, documents: int | None = None) -> Schema:
        """The schema of the samples. Only a sample that may be shorter has a free axis."""
        whole = self.length if self.remainder != "keep" else None
        dtypes = self.dtypes(documents)
        return Schema({name: ndarray(dtype, (whole,)) for name, dtype in dtypes.items()})

    def to_json(self) -> dict[str, Any]:
        """What a dataset keeps of it; datasets with the same have samples of one kind."""
        loss = self.loss
        others = None if loss is None or loss.others is None else sorted(loss.others)
        return {
            "length": self.length,
            "eos": self.eos,
            "bos": self.bos,
            "pad": self.pad,
            "dtype": self.dtype,
            "remainder": self.remainder,
            "loss": None if loss is None else {"counting": sorted(loss.counting), "others": others},
            "arrays": list(self.arrays),
        }


def make_packing(
    *,
    length: int | None,
    specials: Mapping[str, int | None],
    vocabulary: int | None,
    dtype: Any = None,
    remainder: str = "drop",
    loss: LossLike | None = None,
    arrays: Collection[str] = (),
) -> Packing:
    """A packing, checked.

    Args:
        length: tokens of a sample, or ``None``.
        specials: ids by ``eos``, ``bos`` and ``pad``.
        vocabulary: one more than the largest id, if that is known.
        dtype: an integer type; without one, the smallest unsigned one that holds the vocabulary.
        remainder: what becomes of the last sample if it is not full.
        loss: part types that count for the loss.
        arrays: further arrays.

    Raises:
        FormatError: this cannot be done; the message says what can.
    """
    if length is not None:
        length = check_count("length", length, least=1)
    if vocabulary is not None:
        vocabulary = check_count("vocabulary", vocabulary, least=1)
    ids = {name: _checked_id(name, id, vocabulary) for name, id in specials.items()}
    chosen, limit = _checked_dtype(dtype, vocabulary, ids)
    ids["pad"] = _checked_pad(length, remainder, ids)
    if isinstance(arrays, str) or not set(arrays) <= set(ARRAYS):
        raise FormatError(f"arrays has names of {', '.join(ARRAYS)} in it, not {arrays!r}")
    return Packing(
        length=length,
        **ids,
        dtype=chosen,
        limit=limit,
        remainder=remainder,
        loss=None if loss is None else LossRule.parse(loss),
        arrays=tuple(name for name in ARRAYS if name in arrays),
    )


def _checked_pad(length: int | None, remainder: str, ids: Mapping[str, int | None]) -> int | None:
    """The id to pad with, if there is to be padding."""
    pad = ids.get("pad")
    if remainder not in REMAINDERS:
        raise FormatError(f"remainder must be one of {', '.join(REMAINDERS)}, not {remainder!r}")
    if length is None and remainder != "drop":
        raise FormatError(
            f"remainder={remainder!r} needs a length: with one sample a document nothing remains"
        )
    if remainder != "pad":
        if pad is not None:
            raise FormatError("pad= is used with remainder='pad' only")
        return None
    found = ids.get("eos") if pad is None else pad
    if found is None:
        raise FormatError("remainder='pad' needs an id to pad with: give pad= or eos=")
    return found


def check_count(what: str, value: Any, *, least: int) -> int:
    """A whole number of at least `least`, maybe one of numpy's, as an int; or ``FormatError``."""
    try:
        made = least - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        made = least - 1
    if made < least:
        raise FormatError(f"{what} must be a whole number of at least {least}, not {value!r}")
    return made


def _checked_id(name: str, id: int | None, vocabulary: int | None) -> int | None:
    if id is None:
        return None
    id = check_count(name, id, least=0)
    if vocabulary is not None and id >= vocabulary:
        raise FormatError(
            f"{name}={id} is not in the vocabulary of {vocabulary:,} ids: add it to the tokenizer, "
            f"or say vocabulary={id + 1} where the model has room for it"
        )
    return id


def _checked_dtype(
    dtype: Any, vocabulary: int | None, specials: Mapping[str, int | None]
) -> tuple[str, int]:
    """The dtype's name and the number below which ids must be."""
    needed = vocabulary or MOST_IDS
    best = next((name for name in ("uint16", "uint32") if needed <= _room(np.dtype(name))), None)
    if best is None:
        raise FormatError(f"a vocabulary of {needed:,} ids is not possible: ids have 32 bits")
    try:
        chosen = np.dtype(best if dtype is None else dtype)
    except TypeError as error:
        raise FormatError(f"dtype must be an integer type of numpy, not {dtype!r}") from error
    if chosen.kind not in "iu":
        raise FormatError(f"dtype must be an integer type of numpy, not {chosen.name}")
    room = _room(chosen)
    for what, id in ("vocabulary", vocabulary and vocabulary - 1), *specials.items():
        if id is not None and id >= room:
            has = f"a vocabulary of {id + 1:,} ids" if what == "vocabulary" else f"{what}={id}"
            raise FormatError(
                f"{chosen.name} holds ids up to {room - 1:,}, which is too few for {has}: "
                f"use dtype={best!r}"
            )
    return chosen.name, min(room, needed)


def _room(dtype: np.dtype[Any]) -> int:
    return min(int(np.iinfo(dtype).max) + 1, MOST_IDS)
