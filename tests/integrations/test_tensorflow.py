"""Batches as a ``tf.data.Dataset``, where TensorFlow is installed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import splitpipe as sp
from splitpipe.integrations.tensorflow import signature_of, to_tf

needs_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None,
    reason="TensorFlow is no extra, and is not installed here",
)
keeps_threads = pytest.mark.leaks("TensorFlow keeps its threads and their wakers")


def item(number: int) -> dict[str, Any]:
    return {"x": np.full((2, 3), number, np.float32), "label": number, "name": f"é {number}"}


@needs_tensorflow
@keeps_threads
@pytest.mark.deadline(300)
def test_batches_of_a_loader(tmp_path: Path) -> None:
    with sp.DatasetWriter(tmp_path / "ds") as writer:
        writer.write_many(map(item, range(50)))
    pipe = sp.Pipeline(sp.open_dataset(tmp_path / "ds"), shuffle="global", seed=1).batch(8)
    with pipe.loader(executor="inline") as loader:
        wanted = list(loader)
    with pipe.loader() as loader:
        dataset = to_tf(loader)
        assert dataset.element_spec["x"].shape.as_list() == [None, 2, 3]
        found = list(dataset.prefetch(2).as_numpy_iterator())
        with pytest.raises(Exception, match="was read already"):
            list(dataset)
    assert [len(batch["x"]) for batch in found] == [8] * 6 + [2]
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one["x"], other["x"])
        np.testing.assert_array_equal(one["label"], other["label"])
        assert [text.decode() for text in one["name"]] == other["name"]


@needs_tensorflow
@keeps_threads
def test_a_signature_says_what_differs() -> None:
    import tensorflow as tf

    ragged = [np.ones((2, n), np.int32) for n in (1, 3)]
    with pytest.raises(Exception, match="shape"):
        list(to_tf(ragged))
    free = tf.TensorSpec((None, None), tf.int32)
    assert [t.shape.as_list() for t in to_tf(ragged, signature=free)] == [[2, 1], [2, 3]]
    assert list(to_tf([], signature=free)) == []
    pair = next(iter(to_tf([(np.arange(3), [b"a"], 1, True, 0.5, "t")])))
    assert [part.dtype.name for part in pair] == [
        "int64",
        "string",
        "int64",
        "bool",
        "float64",
        "string",
    ]


@needs_tensorflow
@keeps_threads
def test_what_has_no_type() -> None:
    for wrong in (np.array(["2020"], "M8[D]"), None, [1, 2], {"deep": [None]}):
        with pytest.raises(sp.FormatError, match="TensorFlow has no type"):
            signature_of(wrong)
    with pytest.raises(sp.PipelineError, match="no batch"):
        to_tf([])


def test_without_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(ImportError, match="pip install tensorflow"):
        to_tf([np.zeros(2)])
