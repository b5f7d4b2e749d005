"""Engines in processes of their own, and clients that talk to them over real sockets."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from splitpipe.errors import InvalidRequest, NotFound, Unavailable
from splitpipe.server.feed.engines import Engines
from splitpipe.server.security import FeedKeys

from .making import ITERATION, Dealer, engines_in, in_threads, job_of, wait_for


@pytest.mark.parametrize("transport", ["ipc", "tcp"])
def test_one_client_reads_everything_in_order(tmp_path: Path, transport: str) -> None:
    with engines_in(tmp_path) as engines:
        engines.start(job_of({}, batches=1000, tail=(5, 2)))
        with Dealer(engines, "one", transport=transport) as client:
            assert client.read_all() == list(range(1000))
            status = wait_for(
                lambda: (s := engines.status(ITERATION)) and s["state"] == "done" and s
            )
    assert status["completed"] == sum(number % 3 + 1 for number in range(1000))
    assert status["filtered"] == 250 + 5
    assert status["failed"] == 2
    assert status["in_progress"] == {"0": 0}
    assert (status["current"], status["total"]) == (1000, 1000)


def test_clients_that_share_get_each_batch_once(tmp_path: Path) -> None:
    with engines_in(tmp_path) as engines:
        engines.start(job_of({}, batches=3000))
        clients = [Dealer(engines, f"client{n}", window=16) for n in range(3)]
        for client in clients:
            client.connect()
        in_threads(*(client.read_all for client in clients))
        assert sorted(n for client in clients for n in client.delivered) == list(range(3000))
        assert all(client.delivered for client in clients)
        for client in clients:
            client.close()


def test_followers_get_everything(tmp_path: Path) -> None:
    with engines_in(tmp_path) as engines:
        engines.start(job_of({"mode": "follow"}, batches=500))
        clients = [Dealer(engines, f"client{n}", client=f"name{n}") for n in range(3)]
        for client in clients:
            client.connect()
        in_threads(*(client.read_all for client in clients))
        for client in clients:
            assert client.delivered == list(range(500))
            client.close()


def test_ranks_get_rounds(tmp_path: Path) -> None:
    with engines_in(tmp_path) as engines:
        engines.start(job_of({"world_size": 2, "ends": "drop"}, batches=101))
        clients = [Dealer(engines, f"client{n}", rank=n) for n in range(2)]
        for client in clients:
            client.connect()
        in_threads(*(client.read_all for client in clients))
        for client in clients:
            assert client.delivered == list(range(50))
            client.close()
        status = wait_for(lambda: (s := engines.status(ITERATION)) and s["state"] == "done" and s)
        # The last batch is whole, and belongs to no whole round: it counts as left out.
        assert status["completed"] == sum(number % 3 + 1 for number in range(100))
        assert status["filtered"] == 26 + (100 % 3 + 1)


def kill(engines: Engines, time: int) -> None:
    """Kill the engine, for the so-manieth time, and see that this was noticed."""
    process = engines._engines[ITERATION].process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    wait_for(lambda: engines.metrics()[ITERATION]["crashes"] == time)


def test_an_engine_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    with engines_in(tmp_path) as engines:
        engines.start(job_of({}, batches=400))
        with Dealer(engines, "one", window=32) as client:
            for time in range(1, 5):
                client.read_some(70)
                client.listen(0.1)
                kill(engines, time)
                client.connect()
            assert client.read_all() == list(range(400))
        assert engines.metrics()[ITERATION]["crashes"] == 4


def test_a_session_that_is_lost_gives_back_what_it_held(tmp_path: Path) -> None:
    with engines_in(tmp_path) as engines:
        engines.start(job_of({"lease_s": 0.5}, batches=100))
        with Dealer(engines, "lost", window=10) as lost, Dealer(engines, "other") as other:
            first = lost.read_some(5)
            lost.disconnect()
            assert sorted(first + other.read_all()) == list(range(100))


def test_a_late_client_is_told_what_is_not_its_own(tmp_path: Path) -> None:
    with engines_in(tmp_path) as engines:
        engines.start(job_of({"lease_s": 0.3}, batches=20))
        with Dealer(engines, "late", window=4) as late:
            late.read_some(2)
            late.listen_until(lambda: len(late.held) == 4)
            with Dealer(engines, "other") as other:
                other.read_all()
            late.connect()
            late.listen_until(lambda: late.welcome is not None and late.total == 20)
            assert late.welcome is not None
            assert late.welcome.dropped == [(2, 6)]
            assert not late.held


def test_pushing_back_gives_them_again_in_order(tmp_path: Path) -> None:
    with engines_in(tmp_path) as engines:
        engines.start(job_of({}, batches=50))
        with Dealer(engines, "one", window=10) as one:
            one.read_some(5)
            one.listen_until(lambda: len(one.held) == 10 and not one.unconfirmed)
            assert engines.push_back(ITERATION) == 10
            with Dealer(engines, "two", window=100) as two:
                assert two.read_some(45) == list(range(5, 50))
                one.listen_until(lambda: bool(one.refused))
                assert one.refused[0].retry


def test_a_batch_that_cannot_be_made_is_told_at_its_place(tmp_path: Path) -> None:
    with engines_in(tmp_path) as engines:
        engines.start(job_of({}, batches=50, broken=20))
        with Dealer(engines, "one") as one:
            assert one.read_some(20) == list(range(20))
            one.listen_until(lambda: one.failed is not None)
            assert one.failed is not None
            assert one.failed.sequence == 20
            assert "part-3.csv is not there" in str(one.failed.error["message"])
        status = wait_for(lambda: (s := engines.status(ITERATION)) and s["state"] == "failed" and s)
        assert "part-3.csv" in status["errors"][0]["message"]


def test_a_state_of_another_run_moves_the_cursor(tmp_path: Path) -> None:
    with engines_in(tmp_path) as engines:
        engines.start(job_of({}, batches=5000))
        with Dealer(engines, "one", rewind=4000) as one:
            assert one.read_some(100) == list(range(4000, 4100))
        with Dealer(engines, "two", rewind=50) as two:
            assert two.read_all() == list(range(50, 5000))


def test_who_is_behind_the_window_is_served_from_a_stream_of_its_own(tmp_path: Path) -> None:
    from splitpipe.server.feed.limits import FeedLimits

    limits = FeedLimits(window_nbytes=200_000, ahead_nbytes=50_000, block_nbytes=50_000)
    with engines_in(tmp_path, limits=limits) as engines:
        engines.start(job_of({"mode": "follow"}, batches=600, nbytes=5000))
        with (
            Dealer(engines, "fast", client="fast") as fast,
            Dealer(engines, "slow", client="slow", window=8) as slow,
        ):
            slow.read_some(3)
            assert fast.read_all() == list(range(600))
            assert slow.read_all() == list(range(600))


def test_it_listens_beyond_loopback_with_keys_alone(tmp_path: Path) -> None:
    with (
        pytest.raises(InvalidRequest, match="splitpipe keys"),
        engines_in(tmp_path, host="0.0.0.0"),
    ):
        pass
    import zmq

    public, secret = (half.decode() for half in zmq.curve_keypair())
    keys = FeedKeys(public, secret)
    with engines_in(tmp_path, host="0.0.0.0", keys=keys) as engines:
        engines.start(job_of({}, batches=20))
        said = engines.ticket(ITERATION, rank=0, client="", session="s" * 16, host="127.0.0.1")
        assert said["server_key"] == public
        assert secret not in str(said)
        with Dealer(engines, "one", transport="ipc") as one:
            assert one.read_some(10) == list(range(10))


def test_an_engine_that_always_dies_is_given_up_with_its_reason(tmp_path: Path) -> None:
    changes = []
    with engines_in(tmp_path, changed=lambda _name, change: changes.append(change)) as engines:
        job = job_of({}, batches=1)
        engines.start(type(job)(**{**vars(job), "opener": "tests.server.feed.making:missing"}))
        with pytest.raises(Unavailable, match="missing"):
            engines.ticket(ITERATION, rank=0, client="", session="s" * 16)
        wait_for(lambda: bool(changes), until_s=120)  # who asks is told after its first death
    assert [change.status for change in changes] == ["failed"]
    assert "missing" in str(changes[0].error)


def test_what_failed_is_tried_again_when_it_is_started_again(tmp_path: Path) -> None:
    with engines_in(tmp_path) as engines:
        engines.start(job_of({}, batches=50, broken=20))
        with Dealer(engines, "one") as one:
            one.read_some(20)
            wait_for(lambda: (s := engines.status(ITERATION)) and s["state"] == "failed")
            engines.start(job_of({}, batches=50))
            one.listen_until(lambda: bool(one.refused))
            one.failed = None
            one.connect()
            assert one.read_all() == list(range(50))


def test_closing_at_once_waits_for_nobody(tmp_path: Path) -> None:
    with engines_in(tmp_path) as engines:
        engines.start(job_of({}, batches=50))
        wait_for(lambda: engines._engines[ITERATION].process)
    with engines_in(tmp_path) as engines:
        engines.start(job_of({}, batches=50))


def test_the_next_engine_is_a_process_that_is_there_already(tmp_path: Path) -> None:
    with engines_in(tmp_path) as engines:
        spare = wait_for(lambda: engines._spare, until_s=120.0)
        engines.start(job_of({}, batches=50))
        with Dealer(engines, "one") as one:
            assert one.read_all() == list(range(50))
            assert engines.status(ITERATION)["state"] == "done"  # type: ignore[index]
        process = engines._engines[ITERATION].process
        assert process is not None
        assert process.pid == spare.process.pid


def test_stopping_tells_clients_and_is_for_good(tmp_path: Path) -> None:
    changes = []
    with engines_in(tmp_path, changed=lambda _name, change: changes.append(change)) as engines:
        engines.start(job_of({}, batches=100_000))
        with Dealer(engines, "one") as one:
            one.read_some(5)
            engines.stop(ITERATION)
            one.listen_until(lambda: bool(one.refused))
            assert not one.refused[0].retry
            with pytest.raises(NotFound):
                engines.ticket(ITERATION, rank=0, client="", session="s" * 16)
            assert changes[-1].status == "stopped"
            engines.start(job_of({}, batches=100_000))
            one.refused.clear()
            one.connect()
            one.read_some(100)
        assert one.delivered == list(range(105))
