"""Exports: what the libraries themselves read of them, what is refused, when a folder appears."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import splitpipe as sp
from splitpipe.dataset import Dataset, dataset_of
from splitpipe.integrations.exports.folder import NewFolder
from splitpipe.schema import Schema, ndarray
from splitpipe.storage.base import MemoryRecords
from tests.formats import test_mds as mds_writer
from tests.integrations.test_tables import everything

pyarrow = pytest.importorskip("pyarrow", reason="needs the extra [table]")

FORMATS = ("mds", "webdataset", "parquet", "hf")
JPEG, PNG = b"\xff\xd8\xff\xe0 jpeg", b"\x89PNG\r\n\x1a\n png"
SCHEMA = {
    "text": "str",
    "label": "int64",
    "small": "uint8",
    "score": "float32",
    "yes": "bool",
    "document": "json",
    "raw": "bytes",
    "picture": "image",
    "vector": ndarray("float32", (3,)),
    "ragged": ndarray("int16", (None, 2)),
    "when": "datetime64[s]",
}


def record(n: int) -> dict[str, Any]:
    return {
        "text": f"é {n}",
        "label": -n,
        "small": n % 256,
        "score": np.float32(n) / np.float32(3),
        "yes": n % 2 == 0,
        "document": {"n": [n, None, 0.5]},
        "raw": bytes(n % 7),
        "picture": JPEG + bytes([n % 256]),
        "vector": np.float32([n, np.nan, -0.0]),
        "ragged": np.full((n % 3 + 1, 2), n, np.int16),
        "when": np.datetime64(n, "s"),
    }


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dataset]:
    path = tmp_path_factory.mktemp("exports") / "ds"
    with sp.DatasetWriter(path, SCHEMA, bins=2) as writer:
        writer.write_many(map(record, range(300)))
    with sp.open_dataset(path) as dataset:
        list(dataset)  # every bin is open now, and stays so
        yield dataset


def memory(field: Any, values: list[Any], name: str = "x") -> Dataset:
    return dataset_of(MemoryRecords(Schema({name: field}), {name: values}))


class TestReadByTheirOwn:
    def test_parquet(self, source: Dataset, tmp_path: Path) -> None:
        import pyarrow.parquet as pq

        report = sp.export(source, tmp_path / "out", "parquet", shard_nbytes=20_000)
        assert (report.records, report.changed, report.left_out) == (300, {}, ())
        assert report.files > 1
        table = pq.read_table(tmp_path / "out")
        assert table.num_rows == 300
        assert table["label"].to_pylist() == [-n for n in range(300)]
        with sp.open_dataset(tmp_path / "out") as back:
            assert back.schema == source.schema
            assert repr(list(back)) == repr(list(source))

    @pytest.mark.leaks("their library keeps the thread and the lock of its progress bars")
    def test_hugging_face(self, source: Dataset, tmp_path: Path) -> None:
        datasets = pytest.importorskip("datasets", reason="reads what was written")
        report = sp.export(source, tmp_path / "out", "hf", shard_nbytes=20_000)
        assert report.files > 3
        loaded = datasets.load_from_disk(str(tmp_path / "out"))
        assert loaded.num_rows == 300
        assert loaded.features["picture"] == datasets.Image()
        assert loaded.features["vector"] == datasets.List(datasets.Value("float32"), length=3)
        assert loaded.features["yes"] == datasets.Value("bool")
        plain = loaded.cast_column("picture", datasets.Image(decode=False))
        for n in (0, 7, 299):
            row, wanted = plain[n], record(n)
            assert row["picture"] == {"bytes": wanted["picture"], "path": None}
            assert (row["text"], row["label"], row["yes"]) == (f"é {n}", -n, n % 2 == 0)
            assert json.loads(row["document"]) == wanted["document"]
            assert row["ragged"] == wanted["ragged"].tolist()
        with sp.open_dataset(tmp_path / "out") as back:
            assert back.schema == source.schema
            assert repr(list(back)) == repr(list(source))

    @pytest.mark.filterwarnings("ignore::ResourceWarning")  # their own files
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    def test_webdataset(self, source: Dataset, tmp_path: Path) -> None:
        webdataset = pytest.importorskip("webdataset", reason="reads what was written")
        ds = source.select([name for name in SCHEMA if name != "raw"])
        sp.export(ds, tmp_path / "out", "webdataset", shard_nbytes=200_000, workers=2)
        shards = sorted(map(str, (tmp_path / "out").glob("*.tar")))
        assert len(shards) > 1
        read = webdataset.WebDataset(shards, shardshuffle=False, empty_check=False).decode()
        samples = list(read)
        assert [sample["__key__"] for sample in samples] == [f"{n:09d}" for n in range(300)]
        for n in (0, 7, 299):
            sample, wanted = samples[n], record(n)
            assert sample["text.txt" if "text.txt" in sample else "text"] == wanted["text"]
            assert sample["label.cls"] == -n
            assert sample["document.json"] == wanted["document"]
            assert sample["picture.jpg"] == wanted["picture"]
            np.testing.assert_array_equal(sample["vector.npy"], wanted["vector"])

    def test_mds_byte_for_byte(self, source: Dataset, tmp_path: Path) -> None:
        """The same files as their writer makes of the same samples, as retold for our reader."""
        names = ["text", "label", "small", "score", "document", "raw", "vector", "ragged"]
        encodings = ["str", "int", "uint8", "float32", "json", "bytes"]
        encodings += ["ndarray:float32:3", "ndarray:int16"]
        ds = source.select(names)
        sp.export(ds, tmp_path / "out", "mds")
        samples = [{**one, "document": one["document"]} for one in ds]
        columns = dict(zip(names, encodings, strict=True))
        mds_writer.write(tmp_path / "theirs", columns, samples, shard_samples=300)
        ours = (tmp_path / "out" / "shard.00000.mds").read_bytes()
        theirs = (tmp_path / "theirs" / "shard.00000.mds").read_bytes()
        # Alone JSON is written without spaces here, with them there.
        assert len(theirs) - len(ours) == sum(map(spaces, ds))
        plain = ds.select([name for name in names if name != "document"])
        sp.export(plain, tmp_path / "plain", "mds")
        del columns["document"]
        mds_writer.write(tmp_path / "same", columns, list(plain), shard_samples=300)
        for name in ("shard.00000.mds", "index.json"):
            found = (tmp_path / "plain" / name).read_bytes()
            assert found == (tmp_path / "same" / name).read_bytes()

    @pytest.mark.parametrize("compression", [None, "zstd"])
    def test_mds_here(self, source: Dataset, tmp_path: Path, compression: str | None) -> None:
        report = sp.export(
            source, tmp_path / "out", "mds", shard_nbytes=10_000, compression=compression
        )
        assert report.changed == {"yes": "uint8", "when": "int"}
        assert report.files > 3
        with sp.open_dataset(tmp_path / "out") as back:
            for one, other in zip(back, source, strict=True):
                assert one["picture"] == other["picture"]
                assert one["when"] == other["when"].astype(int)
                assert (one["text"], one["document"]) == (other["text"], other["document"])


def spaces(one: dict[str, Any]) -> int:
    return json.dumps(one["document"]).count(" ")


@pytest.mark.long
@pytest.mark.deadline(300)
def test_streaming_reads_it(source: Dataset, tmp_path: Path) -> None:
    """Run it: ``STREAMING_PYTHON=/its/bin/python python -m pytest tests/integrations -m long``."""
    python = os.environ.get("STREAMING_PYTHON")
    if python is None:
        pytest.skip("needs a Python with mosaicml-streaming, named by STREAMING_PYTHON")
    names = [name for name in SCHEMA if name != "picture"]
    for compression in ("none", "zstd"):
        folder = tmp_path / compression
        options = {"compression": compression, "shard_nbytes": 10_000}
        sp.export(source.select(names), folder, "mds", **options)  # type: ignore[arg-type]
        code = (
            "import sys, streaming\n"
            "ds = streaming.StreamingDataset(local=sys.argv[1], shuffle=False, batch_size=1)\n"
            "for n in range(len(ds)):\n"
            "    one = ds[n]\n"
            "    print(n, one['text'], one['label'], one['score'], one['yes'], one['document'],\n"
            "          one['raw'], one['vector'].tolist(), one['ragged'].tolist(), one['when'])\n"
        )
        command = [python, "-c", code, str(folder)]
        env = {**os.environ, "PYTHONIOENCODING": "utf-8"}
        env.pop("PYTHONPATH", None)
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        wanted = [
            f"{n} {one['text']} {one['label']} {np.float32(one['score'])!s} {int(one['yes'])} "
            f"{one['document']} {one['raw']} {one['vector'].tolist()} {one['ragged'].tolist()} "
            f"{one['when'].astype(int)}"
            for n, one in enumerate(source)
        ]
        assert done.stdout.splitlines() == wanted


class TestEveryColumn:
    """Columns with missing values, NaN, ends of ranges, and shapes of every kind."""

    @pytest.mark.parametrize("to", ["webdataset", "parquet", "hf"])
    def test_comes_back(self, to: str, tmp_path: Path) -> None:
        ds = everything()
        if to == "webdataset":  # images of one kind
            ds = ds.select([name for name in ds.schema if name != "image"])
        if to == "parquet" and int(pyarrow.__version__.partition(".")[0]) < 26:
            with pytest.raises(sp.FormatError, match="pyarrow 26"):
                sp.export(ds, tmp_path / "out", to)
            return
        report = sp.export(ds, tmp_path / "out", to)
        assert report.records == 3
        if to != "webdataset":
            with sp.open_dataset(tmp_path / "out") as back:
                assert back.schema == ds.schema
                assert repr(list(back)) == repr(list(ds))

    def test_bare_records(self, tmp_path: Path) -> None:
        ds = dataset_of(MemoryRecords(Schema("bytes"), {"data": [b"a", b""]}))
        for to in FORMATS:
            sp.export(ds, tmp_path / to, to)
        assert list(sp.open_dataset(tmp_path / "parquet")) == [b"a", b""]
        assert list(sp.open_dataset(tmp_path / "mds")) == [{"data": b"a"}, {"data": b""}]

    def test_tar_shards_there_and_back(self, source: Dataset, tmp_path: Path) -> None:
        ds = source.select(["text", "picture", "label"])
        said = {"text": "txt", "picture": "seg.jpg", "label": "cls"}
        sp.export(ds, tmp_path / "one", "webdataset", extensions=said)
        with sp.open_dataset(tmp_path / "one", index_dir=tmp_path / "index") as first:
            assert list(first.schema) == ["__key__", "cls", "seg_jpg", "txt"]
            sp.export(first, tmp_path / "two", "webdataset")
        name = "shard-000000.tar"
        again = (tmp_path / "two" / name).read_bytes()
        import tarfile

        for path in ("one", "two"):
            with tarfile.open(tmp_path / path / name) as archive:
                found = {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]
            assert found["000000007.seg.jpg"] == record(7)["picture"]
            assert found["000000007.cls"] == b"-7"
            assert found["000000007.txt"] == "é 7".encode()
            assert len(found) == 900
        assert len(again) == (tmp_path / "one" / name).stat().st_size


REFUSED = {
    "missing": ("mds", "int64", [1, None], "record 1: it has no value"),
    "complex": ("mds", "complex64", [1j], "complex64, which MDS lacks"),
    "complex_there": ("parquet", "complex64", [1j], "Arrow has no type"),
    "empty": ("mds", ndarray("int8", (None,)), [np.zeros(0, "i1")], "without an element"),
    "no_axes": ("mds", ndarray("int8"), [np.zeros((), "i1")], "without axes"),
    "two_kinds": ("mds", "image", [JPEG, PNG], "record 1: it is no jpeg"),
    "two_kinds_there": ("webdataset", "image", [JPEG, PNG], "record 1: it is no jpg"),
    "nothing": ("webdataset", "str", ["a", None], "record 1 has no value at all"),
    "nat": ("parquet", "datetime64[s]", [np.datetime64("NaT", "s")], "would be None there"),
    "pickle": ("hf", "pickle", [1], "pickled values"),
    "none": ("hf", "str", [], "nothing to export"),
}


class TestRefusals:
    @pytest.mark.parametrize("name", REFUSED)
    def test_what_a_format_cannot_hold(self, name: str, tmp_path: Path) -> None:
        to, field, values, words = REFUSED[name]
        with pytest.raises(sp.FormatError, match=words):
            sp.export(memory(field, values), tmp_path / "out", to)
        assert os.listdir(tmp_path) == []

    def test_options_that_do_not_fit(self, source: Dataset, tmp_path: Path) -> None:
        for to, options in (
            ("mds", {"compression": "gz"}),
            ("mds", {"extensions": {"text": "txt"}}),
            ("hf", {"compression": "zstd"}),
            ("parquet", {"compression": "paper"}),
            ("webdataset", {"compression": "zstd"}),
            ("webdataset", {"extensions": {"other": "txt"}}),
            ("webdataset", {"extensions": {"text": "a/b"}}),
            ("webdataset", {"extensions": {"text": "x", "label": "x"}}),
            ("webdataset", {"extensions": {"vector": "txt"}}),
            ("mds", {"shard_nbytes": 0}),
            ("floppy", {}),
        ):
            with pytest.raises(sp.FormatError):
                sp.export(source, tmp_path / "out", to, **options)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="no option 'bins'"):
            sp.export(source, tmp_path / "out", "mds", bins=3)  # type: ignore[call-arg]
        assert os.listdir(tmp_path) == []

    def test_keys_that_name_no_sample(self, tmp_path: Path) -> None:
        for key in ("", "a.b", ".hidden", "__meta__/x", None, "a\0b"):
            schema = Schema({"__key__": "str", "txt": "str"})
            ds = dataset_of(MemoryRecords(schema, {"__key__": [key], "txt": ["a"]}))
            with pytest.raises(sp.FormatError, match="record 0 has the key"):
                sp.export(ds, tmp_path / "out", "webdataset")
        twice = dataset_of(MemoryRecords(schema, {"__key__": ["a", "a"], "txt": ["a", "b"]}))
        with pytest.raises(sp.FormatError, match="two members with the extension"):
            sp.export(twice, tmp_path / "out", "webdataset")
        assert os.listdir(tmp_path) == []


class TestFolder:
    def test_nothing_strange_is_ever_replaced(self, source: Dataset, tmp_path: Path) -> None:
        ds = source.select(["text"])
        (tmp_path / "home").mkdir()
        (tmp_path / "home" / "letter.txt").write_text("dear")
        (tmp_path / "file").write_text("one")
        for name in ("home", "file"):
            with pytest.raises(sp.StorageError, match="which is no export"):
                sp.export(ds, tmp_path / name, "mds", overwrite=True)
        with pytest.raises(sp.StorageError, match="no export"):
            sp.export(ds, source.path, "mds", overwrite=True)
        assert sorted(os.listdir(tmp_path)) == ["file", "home"]

    def test_an_export_is_replaced_when_asked(self, source: Dataset, tmp_path: Path) -> None:
        out = tmp_path / "out"
        out.mkdir()  # an empty folder is nobody's
        sp.export(source.select(["text"]), out, "parquet")
        with pytest.raises(sp.StorageError, match="say overwrite"):
            sp.export(source.select(["label"]), out, "mds")
        assert list(sp.open_dataset(out).schema) == ["text"]
        sp.export(source.select(["label"]), out, "mds", overwrite=True)
        assert list(sp.open_dataset(out).schema) == ["label"]
        assert os.listdir(tmp_path) == ["out"]

    def test_a_failure_in_the_middle_leaves_what_was(self, tmp_path: Path) -> None:
        out = tmp_path / "out"
        sp.export(memory("int64", [1, 2]), out, "mds")
        before = (out / "index.json").read_bytes()
        with pytest.raises(sp.FormatError):
            sp.export(memory("int64", [*range(9000), None]), out, "mds", overwrite=True)
        assert (out / "index.json").read_bytes() == before
        assert os.listdir(tmp_path) == ["out"]

    def test_a_killed_run_leaves_no_folder_of_that_name(
        self, source: Dataset, tmp_path: Path
    ) -> None:
        code = (
            "import os, signal, sys, splitpipe as sp\n"
            "def told(what, done, total):\n"
            "    if what == 'compare':\n"
            "        os.kill(os.getpid(), signal.SIGKILL)\n"
            "sp.export(sys.argv[1], sys.argv[2], 'mds', progress=told)\n"
        )
        out = tmp_path / "out"
        command = [sys.executable, "-c", code, source.path, str(out)]
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == -signal.SIGKILL, done.stderr
        (left,) = os.listdir(tmp_path)
        assert left.startswith(".out.")
        assert left.endswith(".partial")
        sp.export(source.select(["text"]), out, "mds")
        assert len(sp.open_dataset(out)) == 300

    def test_somebody_else_was_faster(self, tmp_path: Path) -> None:
        with NewFolder(tmp_path / "out", overwrite=False) as folder:
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "index.json").write_text("{}")
            with pytest.raises(sp.StorageError):
                folder.commit()
        assert (tmp_path / "out" / "index.json").read_text() == "{}"


def test_workers_change_nothing(source: Dataset, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    for workers in (0, 2):
        sp.export(
            source,
            tmp_path / str(workers),
            "mds",
            workers=workers,
            progress=lambda *step: told.append(step),
        )
    for name in os.listdir(tmp_path / "0"):
        assert (tmp_path / "0" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()
    assert told[0][0] == "write"
    assert told[-1] == ("compare", 300, 300)


class TestCommand:
    def test_convert_to(
        self, source: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        app = pytest.importorskip("splitpipe.cli.app", reason="needs the extra [cli]")
        words = ["convert", source.path, str(tmp_path / "out"), "--to", "mds", "-w0"]
        assert app.run([*words, "--shard-nbytes", "10000"]) == 0
        text = capsys.readouterr().out
        assert "300 records in" in text
        assert "column yes is uint8 there" in text
        assert app.run([*words, "--overwrite", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["files"] == 2
        assert app.run([*words, "--bins", "3"]) == 1
        assert app.run([*words[:3], "--shard-nbytes", "3"]) == 1
        assert "--shard-nbytes goes with --to" in capsys.readouterr().err


class TestKeysAndMetadata:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        with sp.DatasetWriter(tmp_path / "ds") as writer:
            for n in range(40):
                meta = {"a": [n, "é"]} if n % 3 else None
                writer.write({"n": n, "text": f"t{n}"}, key=f"part/{n:02d}", meta=meta)
        return tmp_path

    def test_are_left_out(self, path: Path) -> None:
        report = sp.export(path / "ds", path / "out", "parquet")
        assert report.left_out == ("keys and metadata",)
        report = sp.export(path / "ds", path / "other", "parquet", metas="meta")
        assert report.left_out == ("keys",)

    @pytest.mark.parametrize("to", ["mds", "parquet", "hf"])
    def test_become_columns(self, path: Path, to: str) -> None:
        report = sp.export(path / "ds", path / "out", to, keys="key", metas="meta")
        assert report.left_out == ()
        with sp.open_dataset(path / "ds") as ds, sp.open_dataset(path / "out") as back:
            assert [one["key"] for one in back] == ds.keys()
            assert [one["meta"] or {} for one in back] == ds.metas()
            with sp.DatasetWriter(path / "again", ds.schema) as writer:
                for one in back:
                    writer.write({"n": one["n"], "text": one["text"]}, one["key"], one["meta"])
        with sp.open_dataset(path / "ds") as ds, sp.open_dataset(path / "again") as again:
            assert (list(ds), ds.keys(), ds.metas()) == (list(again), again.keys(), again.metas())

    @pytest.mark.filterwarnings("ignore::ResourceWarning")  # their own files
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    def test_name_samples(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        webdataset = pytest.importorskip("webdataset", reason="reads what was written")
        app = pytest.importorskip("splitpipe.cli.app", reason="needs the extra [cli]")
        words = ["convert", str(path / "ds"), str(path / "out"), "--to", "webdataset"]
        assert app.run([*words, "--keys", "__key__", "--metas", "meta"]) == 0
        assert "left out" not in capsys.readouterr().out
        shards = sorted(map(str, (path / "out").glob("*.tar")))
        read = webdataset.WebDataset(shards, shardshuffle=False, empty_check=False).decode()
        samples = list(read)
        with sp.open_dataset(path / "ds") as ds:
            assert [sample["__key__"] for sample in samples] == ds.keys()
            assert [sample.get("meta.json", {}) for sample in samples] == ds.metas()
        assert app.run([*words[:3], "--keys", "__key__"]) == 1

    def test_what_cannot_be_is_refused(self, path: Path) -> None:
        for options, text in [
            ({"keys": "n"}, "already"),
            ({"keys": "x", "metas": "x"}, "both"),
        ]:
            with pytest.raises(sp.FormatError, match=text):
                sp.export(path / "ds", path / "out", "parquet", **options)
        sp.export(path / "ds", path / "plain", "parquet")
        with pytest.raises(sp.FormatError, match="catalog"):
            sp.export(path / "plain", path / "out", "parquet", keys="key")
        with sp.DatasetWriter(path / "dotted") as writer:
            writer.write({"n": 1}, key="one.two")
        with pytest.raises(sp.FormatError, match="no dot"):
            sp.export(path / "dotted", path / "out", "webdataset", keys="__key__")
