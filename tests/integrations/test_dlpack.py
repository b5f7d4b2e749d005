"""Arrays between libraries: shared, safe to keep, never writable where they were not."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest

import splitpipe as sp
from splitpipe.integrations.dlpack import from_dlpack, to_dlpack


def large(number: int) -> np.ndarray[Any, Any]:
    return np.full(50_000, number, np.float64)


def test_arrays_that_are_kept_do_not_change() -> None:
    """Of what is left of a batch is one array of another taker: its memory stays its own."""
    with sp.Pipeline(range(40)).map(large, workers=1).batch(2).loader() as loader:
        kept = [np.from_dlpack(to_dlpack(next(loader))) for _ in range(3)]
        gc.collect()
        assert sum(1 for _ in loader) == 17  # in places that are used again and again
        assert [array[:, 0].tolist() for array in kept] == [[0, 1], [2, 3], [4, 5]]
        assert all((array == array[:, :1]).all() for array in kept)
        del kept


class Old:
    """A taker from before DLPack could say that memory is read-only."""

    def __init__(self, shared: Any) -> None:
        self._shared = shared

    def __dlpack__(self, **_options: Any) -> Any:
        return self._shared.__dlpack__()

    def __dlpack_device__(self) -> Any:
        return self._shared.__dlpack_device__()


def test_read_only_memory_is_never_given_to_be_written() -> None:
    array = np.arange(4.0)
    array.flags.writeable = False
    taken = np.from_dlpack(to_dlpack(array))
    # numpy itself can be told so from 2.1 on.
    assert np.shares_memory(taken, array) == (np.lib.NumpyVersion(np.__version__) >= "2.1.0")
    assert not taken.flags.writeable
    old = np.from_dlpack(Old(to_dlpack(array)))
    assert not np.shares_memory(old, array)
    assert old.tolist() == array.tolist()
    with pytest.raises(BufferError):
        to_dlpack(array).__dlpack__(copy=False)


def test_structures_and_what_is_no_array() -> None:
    days = np.array(["2020-01-01"], "M8[D]")
    batch = {"x": [np.float32(1), np.zeros(2)], "day": days, "big": np.array([1], ">i4")}
    shared = to_dlpack(batch)
    assert shared["day"] is days
    assert from_dlpack(shared)["big"].tolist() == [1]
    assert from_dlpack(shared)["x"][1].tolist() == [0.0, 0.0]
    assert from_dlpack({"a": None}) == {"a": None}


class Elsewhere:
    def __dlpack__(self, **_options: Any) -> Any:
        raise AssertionError("nobody asks")

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0


class Broken(Elsewhere):
    def __dlpack__(self, **_options: Any) -> Any:
        raise BufferError("not today")

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0


def test_what_numpy_cannot_have() -> None:
    with pytest.raises(sp.FormatError, match=r"device \(2, 0\)"):
        from_dlpack(Elsewhere())
    with pytest.raises(sp.FormatError, match="not today"):
        from_dlpack([Broken()])


def test_tensors_of_torch_in_a_stage() -> None:
    torch = pytest.importorskip("torch", reason="a taker and giver of DLPack")
    tensor = torch.arange(6.0).reshape(2, 3)
    found = from_dlpack(tensor)
    tensor[0, 0] = 9
    assert found[0, 0] == 9  # one memory
    numbers = np.arange(3)
    assert torch.from_dlpack(to_dlpack(numbers)).data_ptr() == numbers.ctypes.data
    pipe = sp.Pipeline([tensor, tensor]).map(from_dlpack).batch(2)
    with pipe.loader(executor="inline") as loader:
        assert next(loader).shape == (2, 2, 3)
