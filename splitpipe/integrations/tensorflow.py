"""Batches as a ``tf.data.Dataset``.

Responsible for: `to_tf`, and `signature_of`, which says of a batch what TensorFlow wants to know
before it has one. TensorFlow is not an extra: who asks has it.

Rules:
- the first axis of an array may differ from batch to batch, the others may not, unless a signature
  is given that says so;
- numbers, text and bytes are tensors; what TensorFlow has no type for is refused by its name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib import import_module
from itertools import chain
from typing import Any

import numpy as np

from splitpipe.errors import FormatError, PipelineError

__all__ = ["signature_of", "to_tf"]


def to_tf(batches: Iterable[Any], *, signature: Any = None) -> Any:
    """A ``tf.data.Dataset`` of the batches of a loader, made by ``from_generator``.

    It can be read once: what TensorFlow reads ahead is gone for others, and a state of the loader
    is one of what TensorFlow took, not of what a model has seen.

    Args:
        batches: a loader, or anything that gives batches: arrays, lists of text or bytes, numbers,
            or dicts and tuples of them.
        signature: ``tf.TensorSpec`` values in the structure of a batch; what the first batch
            suggests unless said, with a first axis of any length.

    Raises:
        ImportError: TensorFlow is not installed.
        FormatError: TensorFlow has no type for something in the first batch.
        PipelineError: there is no batch, and no signature; or the dataset is read a second time.
    """
    tensorflow = _tensorflow()
    source = iter(batches)
    if signature is None:
        try:
            first = next(source)
        except StopIteration:
            raise PipelineError("there is no batch to take a signature from: give one") from None
        signature = signature_of(first)
        source = chain((first,), source)
    once = _Once(source)
    return tensorflow.data.Dataset.from_generator(once, output_signature=signature)


class _Once:
    """Makes a generator one time: the batches before its second call are gone."""

    def __init__(self, source: Iterator[Any]) -> None:
        self._source: Iterator[Any] | None = source

    def __call__(self) -> Iterator[Any]:
        source, self._source = self._source, None
        if source is None:
            raise PipelineError(
                "this dataset was read already: make one of a loader for each epoch, or give the "
                "loader epochs= and read it once"
            )
        return map(_plain, source)


def _plain(value: Any) -> Any:
    """A batch as TensorFlow takes it: lists of text are one array."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    if isinstance(value, list):
        return np.array(
            [text.encode() if isinstance(text, str) else text for text in value], object
        )
    return value


def signature_of(batch: Any) -> Any:
    """The signature that a batch suggests: its structure, with a ``tf.TensorSpec`` for each array.

    Raises:
        FormatError: TensorFlow has no type for something in it.
    """
    if isinstance(batch, dict):
        return {key: signature_of(value) for key, value in batch.items()}
    if isinstance(batch, tuple):
        return tuple(map(signature_of, batch))
    tensorflow = _tensorflow()
    if isinstance(batch, np.ndarray | np.generic):
        shape = (None, *batch.shape[1:]) if batch.ndim else ()
        return tensorflow.TensorSpec(shape, _dtype(tensorflow, batch.dtype))
    if isinstance(batch, list) and all(isinstance(text, str | bytes) for text in batch):
        return tensorflow.TensorSpec((None,), tensorflow.string)
    for kinds, name in (((bool,), "bool"), ((int,), "int64"), ((float,), "float64")):
        if isinstance(batch, kinds):
            return tensorflow.TensorSpec((), getattr(tensorflow, name))
    if isinstance(batch, str | bytes):
        return tensorflow.TensorSpec((), tensorflow.string)
    raise FormatError(
        f"TensorFlow has no type for a {type(batch).__name__} in a batch: make arrays of it in a "
        "stage, or give a signature"
    )


def _dtype(tensorflow: Any, dtype: np.dtype[Any]) -> Any:
    if dtype.kind in "SU":
        return tensorflow.string
    try:
        return tensorflow.as_dtype(dtype)
    except TypeError as error:
        raise FormatError(
            f"TensorFlow has no type for an array of {dtype}: convert it in a stage, for example "
            "with .astype('int64')"
        ) from error


def _tensorflow() -> Any:
    try:
        return import_module("tensorflow")
    except ImportError as error:
        raise ImportError("to_tf needs TensorFlow: pip install tensorflow") from error
