"""Arrays as tensors over the same memory."""

from __future__ import annotations

import gc
import warnings
from typing import Any, NamedTuple

import numpy as np
import pytest

torch: Any = pytest.importorskip("torch", reason="tensors are those of PyTorch")

import splitpipe as sp  # noqa: E402  torch may be absent
from splitpipe.integrations.torch import tensors  # noqa: E402
from tests.integrations.torch.making import images  # noqa: E402


class Pair(NamedTuple):
    left: Any
    right: Any


NUMBERS = ["bool", "i1", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"]


class TestConverting:
    @pytest.mark.parametrize("dtype", NUMBERS)
    def test_no_copy(self, dtype: str) -> None:
        array = np.arange(12).reshape(3, 4).astype(dtype)
        tensor = tensors()(array)
        assert tensor.data_ptr() == array.ctypes.data
        assert tensor.numpy().dtype == array.dtype
        assert (tensor.numpy() == array).all()

    def test_what_torch_lacks_stays(self) -> None:
        value = {
            "text": np.array(["a", "b"]),
            "when": np.array(["2026-01-01"], "M8[D]"),
            "object": np.array([None, 3], object),
            "long": np.zeros(2, np.longdouble),
            "pair": np.zeros(2, [("x", "i4"), ("y", "f4")]),
            "none": None,
            "number": np.float32(3),
        }
        made = tensors()(value)
        for key, one in value.items():
            assert made[key] is one

    def test_shapes_of_values_are_kept(self) -> None:
        array = np.zeros(3)
        made = tensors()({"a": [array, (array, "x")], "b": Pair(array, {"c": array})})
        assert type(made["a"]) is list
        assert type(made["a"][1]) is tuple
        assert made["a"][1][1] == "x"
        assert type(made["b"]) is Pair
        assert isinstance(made["b"].right["c"], torch.Tensor)

    def test_strides_and_byte_orders(self) -> None:
        array = np.arange(24, dtype="i4").reshape(4, 6)
        assert tensors()(array.T).data_ptr() == array.ctypes.data  # a view stays one
        assert tensors()(array[::-1]).tolist() == array[::-1].tolist()
        assert tensors()(array.astype(">i4")).tolist() == array.tolist()
        mixed = np.zeros(3, [("a", "i1"), ("b", "i4")])["b"]  # strides of no whole number of items
        assert tensors()(mixed).tolist() == [0, 0, 0]

    def test_what_may_not_be_written_to_is_copied_without_a_warning(self) -> None:
        stored = b"\1\2\3\4"
        array = np.frombuffer(stored, np.uint8)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            tensor = tensors()(array)
        tensor.zero_()
        assert stored == b"\1\2\3\4"
        own = tensors(unshared=True)(array)
        assert own.data_ptr() == array.ctypes.data

    def test_nothing_but_arrays_of_numpy_themselves(self) -> None:
        masked = np.ma.masked_array([1, 2], [True, False])
        assert tensors()(masked) is masked  # its mask would be lost


class TestSlots:
    """Memory that tensors are over is not another batch's as long as one of them lives."""

    def test_batches_are_over_shared_memory(self) -> None:
        with images(workers=1).loader(prefetch=2) as loader:
            batch = next(loader)
            made = tensors()(batch)
            assert made["image"].data_ptr() == batch["image"].ctypes.data
            assert loader.stats()[0].arena_refused == 0
            before, after = next(loader)["image"].ctypes.data, made["image"].data_ptr()
            assert before != after

    @pytest.mark.filterwarnings("ignore:.* batches of one worker are being kept")
    def test_kept_tensors_never_change(self) -> None:
        kept: list[tuple[Any, int]] = []
        with images(workers=1, items=480).loader(prefetch=2).to_torch() as loader:
            for step, batch in enumerate(loader):
                image, label = batch["image"], batch["label"].tolist()
                if step % 3 == 0:
                    kept.append((image[1], label[1]))  # a view of a part
                elif step % 3 == 1:
                    kept.append((image.view(-1).numpy()[:1600], label[0]))  # an array over a tensor
                else:
                    kept.append((image.untyped_storage(), label[0]))
                del batch, image
        gc.collect()  # the run is over, its memory is not
        for step, (one, label) in enumerate(kept):
            if step % 3 == 2:
                values = torch.tensor([], dtype=torch.float32).set_(one)[:1600].numpy()
            else:
                values = np.asarray(one)
            assert (values == label).all(), step

    def test_slots_come_back(self) -> None:
        addresses = set()
        with images(workers=1, items=480).loader(prefetch=2).to_torch() as loader:
            for batch in loader:
                addresses.add(batch["image"].data_ptr())
                del batch
            stats = loader.stats()[0]
        assert stats.copies == 0
        assert len(addresses) < 60  # of 120 batches

    def test_gradients_hold_them(self) -> None:
        weight = torch.ones(40, 40, requires_grad=True)
        losses, labels = [], []
        with images(workers=1, items=40).loader(prefetch=2).to_torch() as loader:
            for batch in loader:
                labels.append(batch["label"].sum())
                losses.append((batch["image"] * weight).sum())  # its gradient is the image
                del batch
                if len(losses) == 3:
                    torch.stack(losses).sum().backward()
                    expected = float(torch.stack(labels).sum())
                    assert torch.equal(weight.grad, torch.full((40, 40), expected))
                    weight.grad = None
                    losses.clear()
                    labels.clear()

    def test_a_tensor_may_be_written_to(self) -> None:
        with images(workers=1).loader(prefetch=2).to_torch() as loader:
            first = next(loader)
            first["image"].zero_()
            for batch in loader:
                assert (batch["image"][:, 0, 0] == batch["label"]).all()
                del batch
            assert not first["image"].any()


def test_inline_and_threads_too() -> None:
    for executor in ("inline", "thread"):
        with images(workers=1, items=8).loader(executor=executor).to_torch() as loader:
            assert all(isinstance(batch["image"], torch.Tensor) for batch in loader)


def test_without_torch_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util
    import sys

    for name in [one for one in sys.modules if one.startswith("splitpipe.integrations.torch")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with (
        sp.Pipeline(range(2)).loader(executor="inline") as loader,
        pytest.raises(ImportError, match=r"splitpipe\[torch\]"),
    ):
        loader.to_torch()
