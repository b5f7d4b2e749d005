"""Every bit of a dataset of 64 KiB is flipped: 524,288 cases, and none of them unseen.

What is asked of each: reading gives the true records or an error of ours, in every way of reading,
and `check_dataset` reports it. In the suite every bit of every record and index entry is flipped
under the lanes that decide whether all is well, and a part of all bits under everything else.
All bits under everything, about an hour on two cores, each slice a quarter of it:

    SPLITPIPE_SAFETY=long python -m pytest tests/safety/test_bits.py -k "everything and 0"
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from splitpipe.dataset import Dataset, open_dataset
from splitpipe.errors import CorruptRecord, FormatError
from splitpipe.storage import manifest
from splitpipe.storage.format import ENTRY_DTYPE, FILE_HEADER_NBYTES, RECORD_HEADER_NBYTES
from splitpipe.storage.native import kernel
from splitpipe.testing.faults import Damaged
from tests.safety.kernels import KERNELS, use_kernel
from tests.safety.sessions import write
from tests.safety.truth import assert_is, is_reported, never_wrong
from tests.sampling import sampled

LONG = os.environ.get("SPLITPIPE_SAFETY") == "long"
NBYTES = 65_536
# An hour in pieces of a minute: SPLITPIPE_SLICES=64.
SLICES = int(os.environ.get("SPLITPIPE_SLICES", "4"))


@pytest.fixture(params=KERNELS)
def _kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    use_kernel(request.param, monkeypatch)


def records_of(last: int) -> list[bytes]:
    """300 records in four bins: a complete stripe, and a tail. Some are empty."""
    rng = np.random.default_rng(7)
    lengths = [0, 1, 2, 3, 4, 5, 40, 180, 600]
    records = [rng.bytes(lengths[int(rng.integers(9))]) for _ in range(299)]
    return [*records, rng.bytes(last)]


def files_of(path: Path) -> list[Path]:
    return sorted(entry for entry in path.iterdir() if entry.name != "writer.lock")


def nbytes_of(path: Path) -> int:
    return sum(entry.stat().st_size for entry in files_of(path))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[bytes]]:
    """A dataset of exactly 64 KiB, the lock aside."""
    path, last = tmp_path_factory.mktemp("bits") / "0", 1000
    # More than once: sizes in the manifest may get another digit.
    while nbytes_of(write(path, records_of(last), bins=4)) != NBYTES:
        last += NBYTES - nbytes_of(path)
        path = path.with_name(str(last))
    return path, records_of(last)


@pytest.fixture
def path(base: tuple[Path, list[bytes]]) -> Iterator[Path]:
    """It; whole again after every test."""
    yield base[0]
    assert_is(*base)


@pytest.fixture
def records(base: tuple[Path, list[bytes]]) -> list[bytes]:
    return base[1]


# -- the lanes that decide that all is well -------------------------------------------------------


@pytest.mark.usefixtures("_kernel")
def test_no_bit_of_a_record_passes(path: Path, records: list[bytes]) -> None:
    with open_dataset(path) as ds:
        entries = np.fromfile(path / "v0001-c000.index", ENTRY_DTYPE, offset=FILE_HEADER_NBYTES)
        for number, name in enumerate(bins_of(path)):
            with Damaged(path / name) as file:
                for row in np.flatnonzero(entries["bin"] == number).tolist():
                    offset, length = int(entries["offset"][row]), len(records[row])
                    assert_no_bit_passes(ds, row, file, offset, length)


@pytest.mark.usefixtures("_kernel")
def test_no_bit_of_an_index_entry_passes(path: Path, records: list[bytes]) -> None:
    with open_dataset(path) as ds, Damaged(path / "v0001-c000.index") as file:
        assert ds.get_batch(range(len(ds))) == records
        for row in range(len(records)):
            offset = FILE_HEADER_NBYTES + ENTRY_DTYPE.itemsize * row
            assert_no_bit_passes(ds, row, file, offset, ENTRY_DTYPE.itemsize)


def bins_of(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.glob("*.bin"))


def assert_no_bit_passes(ds: Dataset, row: int, file: Damaged, offset: int, nbytes: int) -> None:
    """Flip every bit of a range that a record depends on, under an open dataset."""
    reader: Any = ds._reader
    get, gather = reader.get, reader._kernel.gather
    batch = np.array([row, (row + 1) % len(ds)], dtype=np.int64)
    expected = ds.get_batch(batch)
    # A length that reaches beyond the end of its bin leads to the true bytes all the same.
    harmless: tuple[Any, ...] = (None, expected[0])
    assert ds[row] == expected[0]
    assert gather(batch) == expected
    for bit in range(8 * offset, 8 * (offset + nbytes)):
        file.flip(bit)
        assert get(row) in harmless, bit
        if bit % 37 == 0 or LONG:
            found = gather(batch)
            assert not isinstance(found, list) or found == expected, bit
        if bit % 149 == 0 or LONG:
            assert truth_or_error(lambda: ds[row]) in harmless, bit
            assert truth_or_error(lambda: ds.get_batch(batch)) in (None, expected), bit
        file.flip(bit)


def truth_or_error(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except CorruptRecord:
        return None


def test_no_bit_of_the_manifest_passes(path: Path) -> None:
    with Damaged(path / "splitpipe.json") as file:
        for bit in range(8 * file.nbytes):
            raw = bytearray(file.content)
            raw[bit // 8] ^= 1 << bit % 8
            with pytest.raises(FormatError):
                manifest.decode(bytes(raw), "here")


SHORT: list[list[bytes]] = [
    # Labels that are all the same, or count: what lies next to a record is much like it.
    *([b"\3" + bytes(width - 1)] * 20 for width in range(1, 9)),
    *([number.to_bytes(width, "little") for number in range(20)] for width in (1, 2, 4, 8)),
    *([bytes(width)] * 20 for width in range(9)),
    *([b"\xff" * width] * 20 for width in range(1, 9)),
    [bytes([number]) * (number % 9) for number in range(20)],
]


@pytest.mark.usefixtures("_kernel")
@pytest.mark.parametrize(*sampled(1, number=range(len(SHORT)), bins=[1, 3]))
def test_no_bit_of_a_short_record_passes(tmp_path: Path, number: int, bins: int) -> None:
    """One bit of the index, and other bytes are read: they must not be as right.

    CRC32C begins by combining its start value with the first four bytes. With a start value that
    differed in a few low bits, as neighbouring places did once, a record of one byte that differs
    in the same bits had the same checksum: a label of 3 was read as 0.
    """
    records = SHORT[number]
    path = write(tmp_path / "ds", records, bins=bins)
    entries = np.fromfile(path / "v0001-c000.index", ENTRY_DTYPE, offset=FILE_HEADER_NBYTES)
    with open_dataset(path) as ds:
        with Damaged(path / "v0001-c000.index") as file:
            for row in range(len(records)):
                offset = FILE_HEADER_NBYTES + ENTRY_DTYPE.itemsize * row
                assert_no_bit_passes(ds, row, file, offset, ENTRY_DTYPE.itemsize)
        for at, name in enumerate(bins_of(path)):
            with Damaged(path / name) as file:
                for row in np.flatnonzero(entries["bin"] == at).tolist():
                    # The header as well: nothing reads it here, and a neighbour may be read as it.
                    offset = int(entries["offset"][row]) - RECORD_HEADER_NBYTES
                    nbytes = RECORD_HEADER_NBYTES + len(records[row])
                    assert_no_bit_passes(ds, row, file, offset, nbytes)


# -- everything -----------------------------------------------------------------------------------


def bits_of(path: Path, part: int) -> Iterator[tuple[Path, list[int]]]:
    """Which bits of which file are tried: in the suite a part of all, and most of the headers."""
    for file in files_of(path):
        count = 8 * file.stat().st_size
        if LONG:
            chosen = range(part, count, SLICES)
            yield file, list(chosen)
            continue
        head = range(part * 9, 8 * FILE_HEADER_NBYTES, SLICES * 9)
        rest = range(8 * FILE_HEADER_NBYTES + part * 661, count, SLICES * 661)
        yield file, [*head, *rest]


@pytest.mark.long
@pytest.mark.deadline(7200 if LONG else 60)
@pytest.mark.parametrize("part", range(SLICES))
def test_everything_sees_a_flipped_bit(
    path: Path, records: list[bytes], part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_kernel("python" if part % 2 or kernel.NAME != "native" else "native", monkeypatch)
    tried = 0
    for name, bits in bits_of(path, part):
        with Damaged(name) as file:
            for bit in bits:
                file.flip(bit)
                never_wrong(path, records)
                assert is_reported(path), f"{name.name}, bit {bit}"
                file.flip(bit)
                tried += 1
    # Files are cut one by one: a piece may have a bit less of each than another.
    least = NBYTES * 8 // SLICES - len(files_of(path)) if LONG else 800 // SLICES
    assert tried >= least
