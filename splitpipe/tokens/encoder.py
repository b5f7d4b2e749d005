"""One way to call every tokenizer.

Responsible for: `Encoder`, what is needed of a tokenizer (many texts in, ids out, what is known of
its vocabulary), and `make_encoder`, which makes one of whatever a user has: a function, a
tokenizer of Hugging Face's ``tokenizers`` or ``transformers``, of ``tiktoken``, or the path of a
``tokenizer.json``. None of them is imported here: they are known by their methods.

Rules:
- no tokenizer adds special tokens by itself: documents are parted by the ``eos`` and ``bos`` that
  the user gave, and by nothing else;
- a tokenizer that would cut or fill texts is refused;
- an encoder travels to other processes.
"""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from splitpipe.errors import FormatError

__all__ = ["BadIds", "Encoder", "flatten", "make_encoder"]

Ids = npt.NDArray[np.uint32]
Lengths = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Encoder:
    """A tokenizer.

    Attributes:
        encode: several texts -> a sequence of ids each.
        name: how it is called in the dataset.
        digest: SHA-256 of what it is made of; ``None`` where that cannot be known.
        vocabulary: one more than its largest id, if that is known.
        find: token -> id, if there is a way.
    """

    encode: Callable[[list[str]], Sequence[Any]]
    name: str
    digest: str | None = None
    vocabulary: int | None = None
    find: Callable[[str], int | None] | None = None

    def special(self, what: str, given: int | str | None) -> int | None:
        """The id of a special token, given as an id or as it is written.

        Raises:
            FormatError: the tokenizer does not have it, or cannot tell.
        """
        if not isinstance(given, str):
            return given
        if self.find is None:
            raise FormatError(f"{what}={given!r}: {self.name} has no list of tokens, give the id")
        found = self.find(given)
        if found is None:
            raise FormatError(f"{what}={given!r} is no token of {self.name}")
        return found


def make_encoder(
    tokenizer: Any, *, vocabulary: int | None = None, batched: bool = False
) -> Encoder:
    """An encoder of anything that tokenizes.

    Args:
        tokenizer: see above; a function takes a text and returns its ids, as any sequence of
            integers.
        vocabulary: one more than the largest id, where the tokenizer does not know it.
        batched: the function takes a list of texts and returns as many sequences.

    Raises:
        FormatError: it cannot be used.
    """
    if isinstance(tokenizer, str | os.PathLike):
        tokenizer = _load(os.fspath(tokenizer))
    if hasattr(tokenizer, "encode_batch") and hasattr(tokenizer, "get_vocab"):
        encoder = _hugging_face(tokenizer)
    elif hasattr(tokenizer, "convert_tokens_to_ids") and callable(tokenizer):
        encoder = _transformers(tokenizer)
    elif hasattr(tokenizer, "encode_ordinary_batch"):
        encoder = _tiktoken(tokenizer)
    elif callable(tokenizer):
        return Encoder(
            tokenizer if batched else _OneByOne(tokenizer),
            name=_name(tokenizer),
            vocabulary=vocabulary,
        )
    else:
        raise FormatError(
            f"a {type(tokenizer).__name__} is no tokenizer: give a function from text to ids, a "
            "tokenizer of tokenizers, transformers or tiktoken, or the path of a tokenizer.json"
        )
    if batched:
        raise FormatError(f"batched is for functions; {encoder.name} is called as it should be")
    if vocabulary is not None and encoder.vocabulary and vocabulary < encoder.vocabulary:
        raise FormatError(f"vocabulary={vocabulary}: {encoder.name} has {encoder.vocabulary} ids")
    if vocabulary is None:
        return encoder
    return Encoder(encoder.encode, encoder.name, encoder.digest, vocabulary, encoder.find)


@dataclass(frozen=True, slots=True)
class _OneByOne:
    function: Callable[[str], Any]

    def __call__(self, texts: list[str]) -> list[Any]:
        return list(map(self.function, texts))


@dataclass(frozen=True, slots=True)
class _HuggingFace:
    """`tokenizers.Tokenizer`; offsets, which cost time, are left out where it can."""

    tokenizer: Any

    def __call__(self, texts: list[str]) -> list[Any]:
        tokenizer = self.tokenizer
        encode = getattr(tokenizer, "encode_batch_fast", tokenizer.encode_batch)
        return [encoding.ids for encoding in encode(texts, add_special_tokens=False)]


def _hugging_face(tokenizer: Any) -> Encoder:
    for what in ("truncation", "padding"):
        if getattr(tokenizer, what, None) is not None:
            raise FormatError(
                f"this tokenizer changes texts of other lengths by itself (its {what} is on): "
                f"call tokenizer.no_{what}() first"
            )
    digest = hashlib.sha256(tokenizer.to_str().encode()).hexdigest()
    model = getattr(tokenizer, "model", None)
    name = type(tokenizer).__name__ if model is None else type(model).__name__
    return Encoder(
        _HuggingFace(tokenizer),
        name=f"tokenizers:{name}",
        digest=digest,
        vocabulary=_room_of(tokenizer.get_vocab()),
        find=tokenizer.token_to_id,
    )


@dataclass(frozen=True, slots=True)
class _Transformers:
    """A tokenizer of ``transformers``, fast or not."""

    tokenizer: Any

    def __call__(self, texts: list[str]) -> Any:
        return self.tokenizer(
            texts,
            add_special_tokens=False,
            padding=False,
            truncation=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,  # it warns of texts that are longer than the model reads at once
        )["input_ids"]


def _transformers(tokenizer: Any) -> Encoder:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    known = tokenizer.get_vocab()
    digest = hashlib.sha256(
        backend.to_str().encode() if backend is not None else repr(sorted(known.items())).encode()
    )
    return Encoder(
        _Transformers(tokenizer),
        name=str(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__),
        digest=digest.hexdigest(),
        vocabulary=_room_of(known),
        find=known.get,
    )


@dataclass(frozen=True, slots=True)
class _TikToken:
    tokenizer: Any

    def __call__(self, texts: list[str]) -> Any:
        return self.tokenizer.encode_ordinary_batch(texts)


def _tiktoken(tokenizer: Any) -> Encoder:
    return Encoder(
        _TikToken(tokenizer),
        name=f"tiktoken:{getattr(tokenizer, 'name', type(tokenizer).__name__)}",
        vocabulary=int(tokenizer.n_vocab),
        find=_FindByEncoding(tokenizer),
    )


@dataclass(frozen=True, slots=True)
class _FindByEncoding:
    tokenizer: Any

    def __call__(self, token: str) -> int | None:
        try:
            return int(self.tokenizer.encode_single_token(token))
        except KeyError:
            return None


def _load(path: str) -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise FormatError(
            "reading a tokenizer.json needs the package tokenizers: "
            "pip install 'splitpipe[tokenizers]'"
        ) from error
    try:
        return Tokenizer.from_file(path)
    except Exception as error:  # the package has no exceptions of its own
        raise FormatError(f"{path} is no tokenizer.json: {error}") from error


def _room_of(vocabulary: Mapping[str, int]) -> int | None:
    """Ids may have holes: what counts is the largest."""
    return max(vocabulary.values()) + 1 if vocabulary else None


def _name(function: Any) -> str:
    owner = getattr(function, "func", function)
    name = getattr(owner, "__qualname__", None) or type(owner).__qualname__
    return f"{getattr(owner, '__module__', None) or type(owner).__module__}.{name}"


class BadIds(ValueError):
    """What a tokenizer gave for one text is no sequence of ids.

    Attributes:
        at: which text.
        why: what is wrong.
    """

    def __init__(self, at: int, why: str) -> None:
        super().__init__(at, why)
        self.at = at
        self.why = why


def flatten(results: Any, count: int) -> tuple[Ids, Lengths]:
    """What a tokenizer gave for `count` texts, as one array of ids and their numbers.

    Raises:
        BadIds: something in it is no sequence of ids.
        FormatError: these are not `count` results.

    Example:
        >>> ids, lengths = flatten([[1, 2], [], (3,)], 3)
        >>> ids.tolist(), lengths.tolist()
        ([1, 2, 3], [2, 0, 1])
    """
    try:
        found = len(results)
    except TypeError:
        found = None
    if found != count:
        got = type(results).__name__ if found is None else f"{found} results"
        raise FormatError(f"the tokenizer was given {count} texts and returned {got}")
    if isinstance(results, np.ndarray):  # rows of one length
        results = list(results)
    kinds = set(map(type, results))
    try:
        if kinds == {list}:
            return _flatten_lists(results)
        if kinds == {np.ndarray}:
            return _flatten_arrays(results)
        if kinds == {bytes}:
            lengths = np.fromiter(map(len, results), np.int64, count)
            return np.frombuffer(b"".join(results), np.uint8).astype(np.uint32), lengths
    except (TypeError, OverflowError, ValueError):
        pass  # one of them is wrong: looked for below
    arrays = [_one(result, at) for at, result in enumerate(results)]
    return _flatten_arrays(arrays)


def _flatten_lists(lists: Sequence[list[int]]) -> tuple[Ids, Lengths]:
    """Unsigned ints take 5 ns a token; numpy's own ways three to four times as long."""
    joined = array("I")
    for ids in lists:
        joined.fromlist(ids)
    lengths = np.fromiter(map(len, lists), np.int64, len(lists))
    return np.asarray(joined, np.uint32), lengths


def _flatten_arrays(arrays: Sequence[npt.NDArray[Any]]) -> tuple[Ids, Lengths]:
    if not arrays:
        return np.empty(0, np.uint32), np.empty(0, np.int64)
    if any(ids.ndim != 1 or ids.dtype.kind not in "iu" for ids in arrays):
        raise ValueError
    lengths = np.fromiter(map(len, arrays), np.int64, len(arrays))
    # Signed and unsigned ones become floats together, which hold every id exactly.
    return _narrowed(np.concatenate(arrays)), lengths


def _narrowed(ids: npt.NDArray[Any]) -> Ids:
    if ids.dtype == np.uint32:
        return ids
    if ids.size and (int(ids.min()) < 0 or int(ids.max()) > 0xFFFFFFFF):
        raise ValueError
    return ids.astype(np.uint32)


def _one(result: Any, at: int) -> Ids:
    """The ids of one text, whatever they come in."""
    ids = getattr(result, "ids", result)
    if isinstance(ids, Mapping) and "input_ids" in ids:
        ids = ids["input_ids"]
    if isinstance(ids, str | Mapping):
        raise BadIds(at, f"the tokenizer returned a {type(ids).__name__}, not a sequence of ids")
    if isinstance(ids, bytes | bytearray | memoryview):  # a tokenizer whose tokens are bytes
        return np.frombuffer(bytes(ids), np.uint8).astype(np.uint32)
    if not isinstance(ids, list | tuple | range) and hasattr(ids, "__array__"):
        ids = np.asarray(ids)
        if ids.ndim != 1 or (ids.dtype.kind not in "iu" and ids.size):
            shape = "x".join(map(str, ids.shape)) or "no"
            raise BadIds(at, f"the tokenizer returned an array of {ids.dtype}, {shape} elements")
        wrong = ids[(ids < 0) | (ids > 0xFFFFFFFF)] if ids.size else ids
        if wrong.size:
            raise BadIds(at, f"{wrong[0]} is not a token id")
        return ids.astype(np.uint32)
    try:
        given = list(ids)
    except TypeError:
        kind = type(ids).__name__
        raise BadIds(at, f"the tokenizer returned a {kind}, not a sequence of ids") from None
    try:
        return np.asarray(array("I", given), np.uint32)
    except (TypeError, OverflowError):
        wrong = next(id for id in given if not _is_id(id))
        raise BadIds(at, f"{wrong!r} is not a token id") from None


def _is_id(value: Any) -> bool:
    try:
        array("I", [value])
    except (TypeError, OverflowError):
        return False
    return True
