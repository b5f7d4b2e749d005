"""Raw samples in pipelines: the same stream however it is run, and nothing lost unsaid."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import splitpipe as sp

COUNT = 120
BROKEN = (7, 8, 40, 77, 119)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    with (tmp_path / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "n"])
        for number in range(COUNT):
            (folder / f"{number}.txt").write_text(f"{number}")
            writer.writerow([f"files/{number}.txt", number])
    return tmp_path / "table.csv"


@pytest.fixture
def broken(table: Path) -> Path:
    for number in BROKEN:
        if number % 2:
            (table.parent / "files" / f"{number}.txt").unlink()
        else:
            (table.parent / "files" / f"{number}.txt").write_bytes(b"\xff")
    return table


def opened(table: Path, **more: Any) -> sp.RawDataset:
    return sp.open_raw(table, fetch="file", decode={"file": sp.media.text()}, **more)


def number_of(sample: dict[str, Any]) -> int:
    assert sample["file"] == sample["n"]
    return int(sample["n"])


def twice(number: int) -> Iterator[tuple[int, str]]:
    yield number, "a"
    if number % 3 == 0:
        yield number, "b"


def noisy(number: int, rng: Any) -> tuple[int, int]:
    return number, int(rng.integers(1 << 30))


RUNS = [
    {"executor": "inline"},
    {"executor": "thread"},
    {"executor": "process"},
    {"executor": "process", "start_method": "fork"},
]


@pytest.mark.deadline(120)
@pytest.mark.parametrize("shuffle", [None, "global", "binwise"])
def test_the_stream_is_that_of_inline(table: Path, shuffle: str | None) -> None:
    with opened(table) as ds:
        for workers in (1, 3):
            pipe = sp.Pipeline(ds, shuffle=shuffle, seed=5).map(number_of, workers=workers)
            expected = list(pipe)
            assert sorted(expected) == list(range(COUNT))
            for run in RUNS:
                with pipe.loader(**run) as loader:
                    assert list(loader) == expected, run


def test_transforms_are_stages(table: Path) -> None:
    with opened(table, transforms=[number_of, twice]) as ds:
        assert ds[3] == [(3, "a"), (3, "b")]
        assert ds[4] == [(4, "a")]
        assert ds.get_batch([4, 6]) == [[(4, "a")], [(6, "a"), (6, "b")]]
        assert list(ds.subset([4, 3])) == [[(4, "a")], [(3, "a"), (3, "b")]]
        expected = [part for n in range(COUNT) for part in twice(n)]
        assert [part for parts in ds for part in parts] == expected
        pipe = ds.pipeline(workers=2)
        assert list(pipe) == expected
        with pipe.loader() as loader:
            assert list(loader) == expected
        assert list(sp.Pipeline(ds).take(1)) == [[(0, "a"), (0, "b")]]


def test_transforms_get_numbers_of_their_place(table: Path) -> None:
    with opened(table, transforms=[number_of, noisy]) as ds:
        with pytest.raises(sp.FormatError, match="rng"):
            ds[0]
        pipe = ds.pipeline(shuffle="global", seed=3, workers=2)
        expected = list(pipe)
        assert len({noise for _, noise in expected}) == COUNT
        with pipe.loader() as loader:
            assert list(loader) == expected


@pytest.mark.deadline(120)
@pytest.mark.parametrize("given", [0, 1, 17, 64, 119])
def test_it_goes_on_where_it_was(table: Path, given: int) -> None:
    with opened(table, transforms=[number_of, twice]) as ds:
        pipe = ds.pipeline(shuffle="global", seed=1, workers=2)
        expected = list(pipe)
        with pipe.loader() as loader:
            for _ in range(given):
                next(loader)
            state = loader.state_dict()
        with pipe.loader(state=state, executor="inline") as loader:
            assert list(loader) == expected[given:]


def test_a_state_of_another_table_is_refused(table: Path) -> None:
    with opened(table) as ds:
        with sp.Pipeline(ds).loader(executor="inline") as loader:
            next(loader)
            state = loader.state_dict()
        with sp.Pipeline(ds.subset(slice(None))).loader(state=state, executor="inline") as loader:
            assert next(loader)["n"] == "1"
    lines = table.read_text().splitlines()
    lines[50], lines[51] = lines[51], lines[50]
    table.write_text("\n".join(lines) + "\n")
    with opened(table) as ds, pytest.raises(sp.ResumeError, match="dataset"):
        sp.Pipeline(ds).loader(state=state, executor="inline")


def test_ranks_share_the_samples(table: Path) -> None:
    with opened(table, transforms=[number_of]) as ds:
        pipe = ds.pipeline(shuffle="global", seed=2)
        whole = list(pipe)
        ranks = [list(pipe.shard(rank, 3)) for rank in range(3)]
        assert [ranks[n % 3][n // 3] for n in range(COUNT)] == whole


@pytest.mark.deadline(120)
@pytest.mark.parametrize("run", RUNS, ids=str)
@pytest.mark.parametrize("workers", [0, 2])
def test_what_fails_is_left_out_and_counted(
    broken: Path, run: dict[str, Any], workers: int
) -> None:
    good = [n for n in range(COUNT) if n not in BROKEN]
    with opened(broken, transforms=[number_of], on_error="skip") as ds:
        pipe = ds.pipeline(workers=workers)
        with pipe.loader(**run) as loader:
            assert list(loader) == good
            skipped = sum(s.skipped for task in loader.stats() for s in task.stages)
            assert skipped + len(good) == COUNT
            failed = loader.errors()
        assert sorted(item.record for item in failed) == list(BROKEN)
        for item in failed:
            assert f"sample {item.record} (row {item.record}" in item.message
            assert f"files/{item.record}.txt" in item.message
            assert item.stage == "reading"


def test_what_a_transform_fails_for_is_its_own(table: Path) -> None:
    def picky(number: int) -> int:
        if number % 10 == 3:
            raise ValueError(number)
        return number

    with opened(table, transforms=[number_of, picky], on_error="skip") as ds:
        with ds.pipeline().loader(executor="inline") as loader:
            assert len(list(loader)) == COUNT - 12
            stages = {s.name: s.skipped for task in loader.stats() for s in task.stages}
        assert next(n for name, n in stages.items() if "picky" in name) == 12
        with pytest.raises(ValueError, match="13"):
            ds[13]
        with pytest.raises(ValueError, match="3"):
            list(ds)


def test_without_a_policy_the_first_failure_ends_it(broken: Path) -> None:
    with opened(broken) as ds:
        loader = sp.Pipeline(ds).map(number_of).loader(executor="inline")
        with loader, pytest.raises(sp.StorageError, match="sample 7 "):
            list(loader)


def test_any_pipeline_has_the_policy_that_it_was_opened_with(broken: Path) -> None:
    good = [n for n in range(COUNT) if n not in BROKEN]
    with opened(broken, on_error="skip") as ds:
        pipe = sp.Pipeline(ds).map(number_of)
        assert list(pipe.loader(executor="inline")) == good
        loader = sp.Pipeline(ds, on_error="raise").loader(executor="inline")
        with loader, pytest.raises(sp.StorageError, match="sample 7 "):
            list(loader)


def test_one_failure_does_not_fetch_others_anew(broken: Path) -> None:
    from splitpipe.stores import LocalStore  # the store whose reads are counted

    reads: list[str] = []

    class Counting(LocalStore):
        def read(self, key: str, *arguments: Any, **more: Any) -> bytes:
            reads.append(key)
            return super().read(key, *arguments, **more)

    store = Counting(broken.parent)
    given = {"base": "counted://x/", "stores": {"counted://x": store}}
    with opened(broken, **given) as ds:
        pipe = sp.Pipeline(ds, on_error="skip").map(number_of)
        assert len(list(pipe)) == COUNT - len(BROKEN)
    assert len(reads) == COUNT


def test_a_retry_reads_again(table: Path) -> None:
    from splitpipe.stores import LocalStore

    tried: list[str] = []

    class Flaky(LocalStore):
        def read(self, key: str, *arguments: Any, **more: Any) -> bytes:
            tried.append(key)
            if tried.count(key) < 3 and key.endswith("5.txt"):
                raise sp.RemoteError(5, "not yet", key)
            return super().read(key, *arguments, **more)

    given = {"base": "flaky://x/", "stores": {"flaky://x": Flaky(table.parent)}}
    with opened(table, transforms=[number_of], **given) as ds:
        pipe = ds.pipeline(on_error=sp.retry(3, delay_s=0.0))
        assert list(pipe) == list(range(COUNT))
    assert tried.count("files/15.txt") == 3


def test_workers_are_no_part_of_the_graph(table: Path) -> None:
    for transforms in ([], [number_of], [number_of, twice]):
        with opened(table, transforms=transforms) as ds:
            with ds.pipeline(workers=2).loader() as loader:
                expected = list(loader)
            with ds.pipeline(workers=3).loader() as loader:
                for _ in range(50):
                    next(loader)
                state = loader.state_dict()
            with ds.pipeline().loader(state=state, executor="inline") as loader:
                assert list(loader) == expected[50:]


def test_it_is_known_by_what_decides_its_samples(table: Path, tmp_path: Path) -> None:
    from splitpipe.pipeline.stages.fingerprint import fingerprint

    def known(**more: Any) -> str:
        with opened(table, **more) as ds:
            return fingerprint(ds)

    assert known() == known()
    same = {"on_error": "skip", "concurrency": 3, "cache_dir": tmp_path / "cache"}
    assert known(**same) == known()
    assert known(max_size=3) != known()
    assert known(transforms=[number_of]) != known()
    assert known(columns=["file"]) != known()
    with opened(table) as ds:
        assert fingerprint(ds.subset([1])) != fingerprint(ds.subset([2]))


@pytest.mark.deadline(120)
def test_a_job_stores_what_was_fetched(table: Path, tmp_path: Path) -> None:
    with opened(table, transforms=[number_of, twice]) as ds:
        pipe = ds.pipeline(workers=2).map(_record)
        sp.Job(pipe, tmp_path / "out").run()
        with sp.open_dataset(tmp_path / "out") as made:
            assert [(r["n"], r["part"]) for r in made] == [
                part for n in range(COUNT) for part in twice(n)
            ]


def _record(made: tuple[int, str]) -> dict[str, Any]:
    return {"n": made[0], "part": made[1]}


def test_a_row_that_is_damaged_is_left_out_alone(table: Path) -> None:
    lines = table.read_text().splitlines()
    lines[31] = lines[31] + ",one,too,many"
    table.write_text("\n".join(lines) + "\n")
    with opened(table) as ds:
        with pytest.raises(sp.CorruptRecord):
            ds[30]
        pipe = sp.Pipeline(ds, on_error="skip").map(number_of)
        assert list(pipe) == [n for n in range(COUNT) if n != 30]
