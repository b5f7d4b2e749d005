"""A loader against real engines: every batch once and in order, whatever dies."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

from splitpipe.client.asynchronous import AsyncRemoteLoader
from splitpipe.errors import (
    ClosedChannel,
    ResumeError,
    ServiceError,
    Unavailable,
)
from splitpipe.server.security import FeedKeys
from splitpipe.wire.limits import Limits
from tests.client.front import ITERATION, Front, fronted
from tests.sampling import seldom

ROOT = Path(__file__).resolve().parents[2]
TRANSPORTS = ["ipc", "tcp", "http"]


@pytest.fixture(params=TRANSPORTS)
def way(request: pytest.FixtureRequest) -> dict[str, Any]:
    """How to reach an engine: options of a loader, and of the front."""
    only = request.param if request.param != "http" else None
    return {"only": only, "transport": "http" if only is None else "zmq"}


def opened(front: Front, way: dict[str, Any], **options: Any) -> Any:
    front.only = way["only"]
    return front.loader(transport=way["transport"], **options)


def numbers(loader: Any) -> list[int]:
    return [batch["number"] for batch in loader]


class TestReading:
    def test_everything_comes_in_order(self, tmp_path: Path, way: dict[str, Any]) -> None:
        with fronted(tmp_path, batches=300) as front, opened(front, way) as loader:
            assert numbers(loader) == list(range(300))
            stats = loader.stats()
            assert stats.batches == stats.total == 300
            assert stats.unconfirmed == stats.repeated == stats.dropped == 0
            with pytest.raises(StopIteration):
                next(loader)

    @pytest.mark.parametrize("way", seldom(TRANSPORTS, keep=["ipc"]), indirect=True)
    def test_large_batches_are_not_copied(self, tmp_path: Path, way: dict[str, Any]) -> None:
        with fronted(tmp_path, batches=5, nbytes=1 << 20) as front, opened(front, way) as loader:
            found = list(loader)
        assert [batch["number"] for batch in found] == list(range(5))
        for batch in found:  # they live on when everything is closed
            assert batch["data"].nbytes == 1 << 20
            assert not batch["data"].flags.owndata
            assert not batch["data"].any()

    def test_one_that_goes_on_elsewhere(self, tmp_path: Path) -> None:
        with fronted(tmp_path, batches=50) as front:
            with front.loader() as loader:
                first = [next(loader)["number"] for _ in range(20)]
            with front.loader() as loader:
                rest = numbers(loader)
        assert first + rest == list(range(50))

    def test_what_was_in_use_at_an_error_comes_again(self, tmp_path: Path) -> None:
        with fronted(tmp_path, batches=20) as front:
            loader = front.loader()
            assert [next(loader)["number"] for _ in range(8)] == list(range(8))
            loader.__exit__(KeyError, KeyError("of its user"), None)
            with front.loader() as loader:
                assert numbers(loader) == list(range(7, 20))

    def test_by_hand(self, tmp_path: Path) -> None:
        with fronted(tmp_path, batches=20) as front:
            with front.loader(ack="manual") as loader:
                for _ in range(6):
                    next(loader)
                    if loader.sequence != 2:
                        loader.ack()
                loader.ack(loader.sequence)
            with front.loader() as loader:
                assert numbers(loader) == [2, *range(6, 20)]

    def test_two_share(self, tmp_path: Path) -> None:
        with (
            fronted(tmp_path, batches=400) as front,
            front.loader(prefetch=4) as one,
            front.loader(prefetch=4) as other,
            ThreadPoolExecutor(2) as threads,
        ):
            found = list(threads.map(numbers, (one, other)))
        assert sorted(found[0] + found[1]) == list(range(400))
        assert min(map(len, found)) > 0

    def test_two_follow(self, tmp_path: Path) -> None:
        with (
            fronted(tmp_path, {"mode": "follow"}, batches=60) as front,
            front.loader(client="a") as one,
            front.loader(client="b") as other,
        ):
            assert numbers(one) == numbers(other) == list(range(60))

    def test_ranks(self, tmp_path: Path) -> None:
        with (
            fronted(tmp_path, {"world_size": 2}, batches=61) as front,
            front.loader(rank=0) as one,
            front.loader(rank=1) as other,
        ):
            assert numbers(one) == list(range(0, 61, 2))
            assert numbers(other) == list(range(1, 61, 2))

    def test_encrypted(self, tmp_path: Path) -> None:
        public, secret = (key.decode() for key in zmq.curve_keypair())
        more = {"keys": FeedKeys(public, secret)}
        with fronted(tmp_path, batches=30, more=more) as front:
            front.only = "tcp"
            with front.loader(transport="zmq") as loader:
                assert numbers(loader) == list(range(30))

    def test_falls_back_to_http(self, tmp_path: Path) -> None:
        with fronted(tmp_path, batches=30) as front:
            front.only = "none of them"
            with front.loader() as loader:
                assert numbers(loader) == list(range(30))
                assert loader.stats().transport == "http"
            with pytest.raises(Unavailable, match="nobody listens"):
                next(front.loader(transport="zmq", reconnect_s=0.2))


class TestLosses:
    @pytest.mark.deadline(120)
    @pytest.mark.parametrize("way", seldom(TRANSPORTS, keep=["ipc", "http"]), indirect=True)
    def test_the_engine_is_killed(self, tmp_path: Path, way: dict[str, Any]) -> None:
        with fronted(tmp_path, batches=400) as front, opened(front, way, prefetch=5) as loader:
            found = []
            for batch in loader:
                found.append(batch["number"])
                if len(found) in (100, 101, 250):
                    front.kill_engine()
            assert found == list(range(400))
            assert loader.stats().connections >= 3

    @pytest.mark.deadline(120)
    @pytest.mark.parametrize("way", seldom(TRANSPORTS, keep=["tcp"]), indirect=True)
    def test_everything_is_away_for_a_while(self, tmp_path: Path, way: dict[str, Any]) -> None:
        with fronted(tmp_path, batches=200) as front, opened(front, way, prefetch=5) as loader:
            found = [next(loader)["number"] for _ in range(50)]
            front.stop()
            front.start()
            found += numbers(loader)
            assert found == list(range(200))

    @pytest.mark.deadline(120)
    def test_an_end_while_the_server_is_away(self, tmp_path: Path) -> None:
        with fronted(tmp_path, {"lease_s": 0.5}, batches=200) as front:
            loader = front.loader(prefetch=5)
            next(loader)
            front.stop()
            with pytest.warns(RuntimeWarning, match="1 batches are done with"):
                loader.close(timeout_s=0.3)
            front.start()
            with front.loader() as again:
                assert sorted(numbers(again)) == list(range(200))

    def test_away_for_too_long(self, tmp_path: Path) -> None:
        with fronted(tmp_path, batches=20) as front:
            loader = front.loader(prefetch=2, reconnect_s=0.3)
            next(loader)
            front.stop()
            with pytest.raises(Unavailable, match=r"could not be reached for \d+ s"):
                numbers(loader)
            front.start()

    def test_a_frame_beyond_the_limits_is_not_taken(self, tmp_path: Path) -> None:
        with fronted(tmp_path, batches=20, nbytes=1 << 20) as front:
            loader = front.loader(limits=Limits(nbytes=1 << 19), reconnect_s=0.5)
            with pytest.raises(ServiceError):
                next(loader)

    def test_a_client_that_is_gone_gives_back(self, tmp_path: Path) -> None:
        with fronted(tmp_path, {"lease_s": 0.5}, batches=40) as front:
            code = (
                "import sys, tests.client.front as front\n"
                "loader = front.loader_at(sys.argv[1], prefetch=10)\n"
                "print(next(loader)['number'], flush=True)\n"
                "sys.stdin.read()\n"
            )
            command = [sys.executable, "-c", code, front.url]
            pipe = subprocess.PIPE
            with subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=ROOT) as process:
                assert process.stdout is not None
                assert process.stdout.readline() == b"0\n"
                process.kill()
            with front.loader() as other:
                assert sorted(numbers(other)) == list(range(40))

    def test_one_that_is_collected_leaves_nothing(self, tmp_path: Path) -> None:
        with fronted(tmp_path, batches=40) as front:
            loader = front.loader()
            next(loader)
            feed = loader._feed
            del loader
            gc.collect()
            feed._keeper.join()
            assert feed._gone


class TestAsking:
    def test_pushback(self, tmp_path: Path) -> None:
        with fronted(tmp_path, batches=40) as front, front.loader(prefetch=8) as loader:
            assert next(loader)["number"] == 0
            count = loader.pushback()
            assert count <= 8
            with front.loader(prefetch=8) as other:
                taken = [next(other)["number"] for _ in range(3)]
            assert sorted(taken + numbers(loader)) == list(range(1, 40))

    def test_a_close_after_the_server_took_everything_back(self, tmp_path: Path) -> None:
        with fronted(tmp_path, batches=40) as front:
            with front.loader(prefetch=4) as loader:
                assert next(loader)["number"] == 0
                assert front.engines.push_back(ITERATION) > 0
            with front.loader() as again:  # what was done with in time was heard of
                assert numbers(again) == list(range(1, 40))

    def test_a_state_is_gone_on_from(self, tmp_path: Path) -> None:
        with fronted(tmp_path, batches=40) as front:
            with front.loader() as loader:
                first = [next(loader)["number"] for _ in range(10)]
                state = loader.state_dict()
                rest = numbers(loader)
            assert first + rest == list(range(40))
            with front.loader(state=state) as loader:
                assert numbers(loader) == rest
                assert state["next"] == 10

    def test_a_state_is_loaded(self, tmp_path: Path) -> None:
        with fronted(tmp_path, batches=40) as front, front.loader() as loader:
            next(loader)
            state = loader.state_dict()
            rest = [next(loader)["number"] for _ in range(20)]
            loader.load_state_dict(state)
            assert [next(loader)["number"] for _ in range(20)] == rest
            with pytest.raises(ResumeError, match="rank"):
                loader.load_state_dict({**state, "rank": 3})
            with pytest.raises(ResumeError, match="iteration"):
                loader.load_state_dict({**state, "iteration": "other"})
            with pytest.raises(ResumeError):
                loader.load_state_dict({})

    def test_an_error_is_raised_at_its_place(self, tmp_path: Path) -> None:
        with fronted(tmp_path, batches=40, broken=7) as front, front.loader() as loader:
            assert [next(loader)["number"] for _ in range(7)] == list(range(7))
            with pytest.raises(Exception, match=r"part-3\.csv is not there") as caught:
                next(loader)
            assert "in place of batch 7" in caught.value.__notes__
            with pytest.raises(type(caught.value), match=r"part-3\.csv"):
                next(loader)

    def test_a_stop_is_told(self, tmp_path: Path) -> None:
        with fronted(tmp_path, batches=10_000) as front, front.loader(prefetch=2) as loader:
            next(loader)
            front.engines.stop(ITERATION)
            with pytest.raises(ServiceError):
                numbers(loader)

    def test_waiting_has_an_end(self, tmp_path: Path) -> None:
        with fronted(tmp_path, batches=3) as front, front.loader(prefetch=3) as one:
            next(one)
            with front.loader() as other, pytest.raises(TimeoutError):
                other.take(timeout_s=0.2)

    def test_a_close_ends_who_waits(self, tmp_path: Path) -> None:
        with (
            fronted(tmp_path, batches=3) as front,
            front.loader(prefetch=3) as one,
            ThreadPoolExecutor(1) as threads,
        ):
            next(one)
            other = front.loader()
            waiting = threads.submit(other.take)
            while other._feed._moving.acquire(blocking=False):  # until somebody waits with it
                other._feed._moving.release()
            other.close()
            with pytest.raises(ClosedChannel):
                waiting.result()

    def test_nobody_has_it(self, tmp_path: Path) -> None:
        with fronted(tmp_path) as front:
            front.engines.stop(ITERATION)
            with pytest.raises(ServiceError):
                next(front.loader(reconnect_s=0.2))


class TestAsync:
    def test_everything_comes(self, tmp_path: Path) -> None:
        async def read(front: Front) -> list[int]:
            async with AsyncRemoteLoader(front.loader) as loader:
                return [batch["number"] async for batch in loader]

        with fronted(tmp_path, batches=100) as front:
            assert asyncio.run(read(front)) == list(range(100))

    def test_who_is_cancelled_loses_nothing(self, tmp_path: Path) -> None:
        async def read(front: Front) -> list[int]:
            found = []
            async with AsyncRemoteLoader(front.loader) as loader:
                while True:
                    try:
                        async with asyncio.timeout(0.003):
                            found.append((await anext(loader))["number"])
                    except TimeoutError:
                        continue
                    except StopAsyncIteration:
                        return found

        with fronted(tmp_path, batches=100, spin=2000) as front:
            assert asyncio.run(read(front)) == list(range(100))


class TestTensors:
    def test_without_torch_it_says_so(self, tmp_path: Path) -> None:
        with fronted(tmp_path) as front, front.loader() as loader:
            if importlib.util.find_spec("torch") is not None:
                assert type(next(loader.to_torch())["data"]).__module__ == "torch"
                return
            with pytest.raises(ImportError, match="pip install torch"):
                loader.to_torch()

    def test_arrays_may_be_written_to(self) -> None:
        pytest.importorskip("torch", reason="tensors are those of PyTorch")
        from splitpipe.integrations.torch import tensors
        from splitpipe.wire.values import decode, encode

        value = decode(encode({"x": np.arange(3), "y": [np.zeros(9000, ">f4"), "text"]}))
        made = tensors(unshared=True)(value)
        made["x"][0] = 7
        assert value["x"][0] == 7  # no copy: a tensor over the memory that arrived
        assert made["y"][0].tolist() == [0] * 9000
        assert made["y"][1] == "text"
