"""Files that are cut, swapped, old, foreign, missing, or something else than a file.

Good bytes in the wrong place are as wrong as a flipped bit; what is not a dataset's is neither read
nor touched; and what is beyond 4 GiB is read and written like everything else.

In the suite files are cut at some bytes. At every byte, in some minutes:

    SPLITPIPE_SAFETY=long python -m pytest tests/safety/test_misplaced.py
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import google_crc32c
import numpy as np
import pytest

from splitpipe.dataset import open_dataset
from splitpipe.errors import CorruptRecord, FormatError, SplitpipeError, StorageError
from splitpipe.schema import Field
from splitpipe.storage import DatasetWriter, check_dataset
from splitpipe.storage import format as layouts
from splitpipe.storage.format import ENTRY, FILE_HEADER_NBYTES, FileId
from splitpipe.storage.layout import BinLayout, Segment
from splitpipe.storage.manifest import Column, Manifest, encode
from splitpipe.testing.faults import Damaged
from tests.safety.kernels import KERNELS, use_kernel
from tests.safety.sessions import FIRST, numbered, write
from tests.safety.truth import assert_is, is_reported, never_wrong

LONG = os.environ.get("SPLITPIPE_SAFETY") == "long"
SAME = (b"same",) * 300


def files_of(path: Path) -> list[Path]:
    return sorted(entry for entry in path.iterdir() if entry.name != "writer.lock")


def two_segments(path: Path) -> Path:
    write(path, FIRST, bins=2)
    with DatasetWriter(path, append=True, bins=3) as writer:
        writer.write_many(numbered(70, start=150))
    return path


class TestCut:
    @pytest.mark.long
    @pytest.mark.deadline(3600 if LONG else 60)
    def test_at_any_byte(self, tmp_path: Path) -> None:
        records = numbered(220)
        path = two_segments(tmp_path / "ds")
        for name in files_of(path):
            with Damaged(name) as file:
                sizes = range(file.nbytes)
                for size in (
                    sizes if LONG else {*sizes[:2], 63, 64, 65, *sizes[66::97], *sizes[-2:]}
                ):
                    if size >= file.nbytes:
                        continue
                    file.cut(size)
                    never_wrong(path, records)
                    assert is_reported(path), f"{name.name}, {size} bytes"
                    file.restore()
        assert_is(path, records)

    def test_and_filled_with_nothing(self, tmp_path: Path) -> None:
        """As after a crash of a file system that kept the size and lost the bytes."""
        path = two_segments(tmp_path / "ds")
        for name in files_of(path):
            with Damaged(name) as file:
                for kept in (0, 64, file.nbytes // 2, file.nbytes - 1):
                    hollow = file.content[:kept] + bytes(file.nbytes - kept)
                    if hollow != file.content:
                        file.become(hollow)
                        never_wrong(path, numbered(220))
                        assert is_reported(path), f"{name.name} from byte {kept}"

    def test_a_file_that_is_longer_is_fine(self, tmp_path: Path) -> None:
        """What lies past the committed end is nobody's."""
        path = two_segments(tmp_path / "ds")
        for name in files_of(path):
            if name.suffix != ".json":
                name.write_bytes(name.read_bytes() + b"leftover of a killed writer")
        assert_is(path, numbered(220))
        with DatasetWriter(path, append=True) as writer:
            writer.write(b"more")
        assert_is(path, (*numbered(220), b"more"))


class TestOfAnother:
    """A file of another dataset, volume or time, with the very same records in it."""

    @pytest.mark.parametrize("name", ["v0001-c000-b00000.bin", "v0001-c000.index"])
    def test_dataset(self, tmp_path: Path, name: str) -> None:
        path, other = write(tmp_path / "ds", SAME), write(tmp_path / "other", SAME)
        with Damaged(path / name) as file:
            file.become((other / name).read_bytes())
            assert not never_wrong(path, SAME)
            assert is_reported(path)
        assert_is(path, SAME)

    def test_any_file_for_any_other(self, tmp_path: Path) -> None:
        path = write(tmp_path / "ds", SAME, bins=3)
        for name in files_of(path):
            for other in files_of(path):
                if other == name:
                    continue
                with Damaged(name) as file:
                    file.become(other.read_bytes())
                    never_wrong(path, SAME)
                    assert is_reported(path), f"{other.name} in place of {name.name}"

    def test_manifest_of_another_dataset(self, tmp_path: Path) -> None:
        path, other = write(tmp_path / "ds", SAME), write(tmp_path / "other", SAME)
        shutil.copy(other / "splitpipe.json", path)
        with pytest.raises(FormatError, match="another dataset"):
            open_dataset(path)

    def test_files_of_an_earlier_volume(self, tmp_path: Path) -> None:
        path = write(tmp_path / "ds", SAME)
        earlier = shutil.copytree(path, tmp_path / "earlier")
        with DatasetWriter(path, overwrite=True, bins=2) as writer:
            writer.write_many(SAME)
        for name in ("c000-b00000.bin", "c000-b00001.bin", "c000.index", "c000.sums"):
            with Damaged(path / f"v0002-{name}") as file:
                file.become((earlier / f"v0001-{name}").read_bytes())
                never_wrong(path, SAME)
                assert is_reported(path), name
        # All of them together are the earlier dataset, whole.
        for name in files_of(earlier):
            shutil.copy(name, path)
        assert_is(path, SAME)

    def test_files_of_an_earlier_commit(self, tmp_path: Path) -> None:
        path = write(tmp_path / "ds", FIRST)
        earlier = shutil.copytree(path, tmp_path / "earlier")
        with DatasetWriter(path, append=True) as writer:
            writer.write_many(FIRST)
        for name in files_of(earlier):
            if name.suffix == ".json":
                continue
            with Damaged(path / name.name) as file:
                file.become(name.read_bytes())
                never_wrong(path, FIRST + FIRST)
                assert is_reported(path), name
        # The manifest of an earlier commit is that commit: later bytes are past its ends.
        shutil.copy(earlier / "splitpipe.json", path)
        assert_is(path, FIRST)


# -- what is no file of ours ----------------------------------------------------------------------


def loop(path: Path) -> None:
    path.symlink_to(path)


def dangling(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere"))


INSTEAD: dict[str, Callable[[Path], object]] = {
    "a directory": lambda path: path.mkdir(),
    "a loop of links": loop,
    "a link to nothing": dangling,
    "an empty file": lambda path: path.write_bytes(b""),
    "a pipe": lambda path: os.mkfifo(path),
    "nothing": lambda path: None,
}


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


NAMES = ("splitpipe.json", "v0001-c000.index", "v0001-c000.sums", "v0001-c000-b00001.bin")


class TestSomethingElse:
    @pytest.mark.parametrize("what", INSTEAD)
    @pytest.mark.parametrize("name", NAMES)
    def test_in_place_of_a_file(self, tmp_path: Path, name: str, what: str) -> None:
        path = write(tmp_path / "ds", FIRST)
        (path / name).rename(tmp_path / "aside")
        INSTEAD[what](path / name)
        never_wrong(path, FIRST)
        assert is_reported(path)
        remove(path / name)
        (tmp_path / "aside").rename(path / name)
        assert_is(path, FIRST)

    @pytest.mark.parametrize("what", INSTEAD)
    @pytest.mark.parametrize("name", NAMES)
    def test_in_place_of_a_file_is_not_written_to(
        self, tmp_path: Path, name: str, what: str
    ) -> None:
        if what == "an empty file" and name != "splitpipe.json":
            pytest.skip("files that are too short have their own test")
        path = write(tmp_path / "ds", FIRST)
        (path / name).rename(tmp_path / "aside")
        INSTEAD[what](path / name)
        with pytest.raises(SplitpipeError), DatasetWriter(path, append=True) as writer:
            writer.write_many(FIRST)
        remove(path / name)
        (tmp_path / "aside").rename(path / name)
        assert_is(path, FIRST)

    @pytest.mark.parametrize("name", NAMES[1:])
    def test_a_file_that_was_cut_is_not_gone_on_with(self, tmp_path: Path, name: str) -> None:
        """It would have its old size again, and zeros in place of what it lost."""
        path = write(tmp_path / "ds", FIRST)
        with Damaged(path / name) as file:
            file.cut(file.nbytes - 1)
            with pytest.raises(FormatError), DatasetWriter(path, append=True) as writer:
                writer.write_many(FIRST)
            assert file.nbytes > (path / name).stat().st_size
        assert_is(path, FIRST)

    def test_a_manifest_of_another_dataset_is_not_gone_on_with(self, tmp_path: Path) -> None:
        path, other = write(tmp_path / "ds", SAME), write(tmp_path / "other", SAME)
        shutil.copy(other / "splitpipe.json", path)
        with (
            pytest.raises(FormatError, match="another dataset"),
            DatasetWriter(path, append=True) as writer,
        ):
            writer.write(b"x")

    @pytest.mark.parametrize("what", ["a directory", "a loop of links"])
    def test_in_place_of_the_lock(self, tmp_path: Path, what: str) -> None:
        path = write(tmp_path / "ds", FIRST)
        (path / "writer.lock").unlink()
        INSTEAD[what](path / "writer.lock")
        assert_is(path, FIRST)
        with pytest.raises(StorageError, match="lock"):
            DatasetWriter(path, append=True)

    def test_a_link_to_the_true_file_is_as_good(self, tmp_path: Path) -> None:
        path = write(tmp_path / "ds", FIRST)
        for name in files_of(path):
            name.rename(tmp_path / name.name)
            name.symlink_to(tmp_path / name.name)
        assert_is(path, FIRST)

    def test_foreign_files_are_neither_read_nor_touched(self, tmp_path: Path) -> None:
        path = write(tmp_path / "ds", FIRST)
        foreign = {
            "notes.txt": b"mine",
            "v0001-c000-b00007.bin": b"has our kind of name, and no commit names it",
            "v0009-c000.index": b"",
            ".hidden": b"x",
            "splitpipe.json.bak": b"{}",
            "catalog.sqlite": b"SQLite format 3\0",
        }
        for name, content in foreign.items():
            (path / name).write_bytes(content)
        (path / "folder").mkdir()
        assert_is(path, FIRST)
        with DatasetWriter(path, append=True) as writer:
            writer.write(b"more")
        with DatasetWriter(path, overwrite=True, bins=2) as writer:
            writer.write_many(FIRST)
        assert_is(path, FIRST)
        assert {name: (path / name).read_bytes() for name in foreign} == foreign
        assert (path / "folder").is_dir()

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write anything")
    def test_permission_denied(self, tmp_path: Path) -> None:
        path = write(tmp_path / "ds", FIRST)
        for name in files_of(path):
            name.chmod(0)
            assert not never_wrong(path, FIRST) or name.suffix == ".sums"
            name.chmod(0o600)
        path.chmod(0o500)
        with pytest.raises(StorageError) as caught:
            DatasetWriter(path, overwrite=True).write(b"x")
        path.chmod(0o700)
        assert caught.value.errno == errno.EACCES
        assert_is(path, FIRST)


# -- beyond 4 GiB ---------------------------------------------------------------------------------

ZEROS = bytes(1 << 26)
LENGTH = (1 << 32) + 12_345


def with_a_giant(path: Path, records: Sequence[bytes]) -> None:
    """A dataset in one bin whose first record is a hole of more than 4 GiB, others behind it."""
    dataset = bytes(range(16))
    bin_id = FileId("bin", dataset, 1, 0, 0)
    record = layouts.record_seed(dataset, 0, 0)
    offset = FILE_HEADER_NBYTES + layouts.LONG_RECORD_HEADER_NBYTES
    crc = crc_of_zeros(layouts.place(record, offset, 0), LENGTH)
    header = layouts.pack_record_header(crc, LENGTH, 0)
    run = layouts.place(layouts.run_seed(dataset, 0, 0), FILE_HEADER_NBYTES, 0)
    run = crc_of_zeros(google_crc32c.extend(run, header), LENGTH)
    entries = ENTRY.pack(offset, LENGTH, 0, crc)
    path.mkdir()
    with (path / layouts.file_name(bin_id)).open("wb") as file:
        file.write(layouts.file_header(bin_id) + header)
        file.seek(offset + LENGTH)
        for row, data in enumerate(records, start=1):
            offset = file.tell() + layouts.RECORD_HEADER_NBYTES
            crc = google_crc32c.extend(layouts.place(record, offset, row), data)
            piece = layouts.pack_record_header(crc, len(data), row) + data
            file.write(piece)
            run = google_crc32c.extend(run, piece)
            entries += ENTRY.pack(offset, len(data), 0, crc)
        size = file.tell()
    for kind, content in (("index", entries), ("sums", b"")):
        identity = FileId(kind, dataset, 1, 0)
        (path / layouts.file_name(identity)).write_bytes(layouts.file_header(identity) + content)
    page = google_crc32c.extend(layouts.place(layouts.index_seed(dataset, 0), 0, 0), entries)
    tail = np.array([page, run], dtype="<u4").tobytes()
    layout = BinLayout([Segment(0, 1 + len(records), 0, 1, None, tail)])
    column = Column("data", Field.parse("bytes"), 0, (size,), layout)
    manifest = Manifest(dataset, 1, 1, 1 + len(records), (column,))
    (path / "splitpipe.json").write_bytes(encode(manifest))


def crc_of_zeros(crc: int, count: int) -> int:
    for _ in range(count // len(ZEROS)):
        crc = google_crc32c.extend(crc, ZEROS)
    return int(google_crc32c.extend(crc, ZEROS[: count % len(ZEROS)]))


@pytest.mark.long
@pytest.mark.deadline(600 if LONG else 60)
@pytest.mark.parametrize("name", KERNELS)
def test_records_beyond_4_gib_are_read_and_written(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_kernel(name, monkeypatch)
    path = tmp_path / "ds"
    records = [b"%d behind the giant" % row for row in range(1, 200)]
    with_a_giant(path, records[:40])
    # On the machine's disk it takes no room: it is a hole.
    for count in (40, 199):
        if count > 40:
            with DatasetWriter(path, append=True) as writer:
                writer.write_many(records[40:])
        with open_dataset(path) as ds:
            assert len(ds) == 1 + count
            assert [ds[row] for row in range(1, 1 + count)] == records[:count]
            assert ds.get_batch(range(1, 1 + count)) == records[:count]
            assert list(ds.iterate_rows(1, 1 + count)) == records[:count]
            assert ds.lengths([0, 1]).tolist() == [LENGTH, len(records[0])]
    name = "v0001-c000-b00000.bin"
    assert (path / name).stat().st_blocks * 512 < 1 << 20
    with Damaged(path / "v0001-c000.index") as file, open_dataset(path) as ds:
        # The lowest bit that 32 bits do not hold.
        at = 8 * (FILE_HEADER_NBYTES + ENTRY.size * 5) + 32
        file.flip(at)
        with pytest.raises(CorruptRecord):
            ds[5]
    if LONG:
        assert check_dataset(path).ok
