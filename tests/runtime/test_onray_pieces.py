"""What workers on a cluster are made of, without one: places, doors, wires, bodies."""

from __future__ import annotations

import select
import socket
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

import splitpipe as sp
from splitpipe.errors import GraphError
from splitpipe.pipeline.plan import RunOptions, plan
from splitpipe.runtime import board as b
from splitpipe.runtime.deaths import LOST, Death
from splitpipe.runtime.notes import Accused, Notes, site_of
from splitpipe.runtime.onray.clocks import ROUNDS, Skew
from splitpipe.runtime.onray.nearby import HELLO, Doorway, NearProcess, enter
from splitpipe.runtime.onray.telling import NUMBER, Listener, ToldRow
from splitpipe.runtime.onray.wire import Tag, Wire, listen
from splitpipe.transport.arena import ArenaLink
from splitpipe.transport.envelope import Packer, unpack
from splitpipe.transport.nowhere import NowhereLink
from splitpipe.transport.repacking import repack
from splitpipe.transport.slot import Bounds
from tests.runtime.comparing import frozen

PATIENCE_MS = 30_000


class TestPlaces:
    def tasks(self, pipe: sp.Pipeline, **options: Any) -> list[tuple[str, str, dict[str, float]]]:
        made = plan({"": pipe.node}, RunOptions.of(executor="ray", **options))
        return [(task.name, task.executor, dict(task.resources)) for task in made.tasks]

    def test_what_a_stage_asks_for_is_its_own_worker(self) -> None:
        pipe = sp.Pipeline(range(9)).map(abs, workers=2).map(str, resources={"GPU": 0.5})
        assert self.tasks(pipe) == [
            ("abs", "ray", {"CPU": 1.0}),
            ("str", "ray", {"GPU": 0.5}),
        ]

    def test_the_run_says_it_for_all_others(self) -> None:
        pipe = sp.Pipeline(range(9)).map(abs).map(str, workers=2, resources={"GPU": 1})
        assert self.tasks(pipe, resources={"CPU": 2}) == [("abs > str", "ray", {"GPU": 1.0})]
        assert self.tasks(sp.Pipeline(range(9)).map(abs), resources={"CPU": 2}) == [
            ("abs", "ray", {"CPU": 2.0})
        ]

    def test_a_free_stage_says_it_too(self) -> None:
        left, right = sp.Pipeline(range(9)).map(abs), sp.Pipeline(range(9))
        pipe = sp.stage(zip, left, right, resources={"GPU": 1}, strict=True)
        assert self.tasks(pipe) == [("abs > zip", "ray", {"GPU": 1.0})]

    def test_one_stage_alone_may_be_there(self) -> None:
        pipe = sp.Pipeline(range(9)).map(abs, executor="ray").map(str, executor="process")
        made = plan({"": pipe.node}, RunOptions())
        assert [task.executor for task in made.tasks] == ["ray", "process"]
        assert "1 actor" in pipe.explain()

    @pytest.mark.parametrize("wrong", [{"GPU": -1}, {"GPU": "1"}, {1: 1}, ["GPU"], {"GPU": True}])
    def test_what_is_no_amount_is_refused(self, wrong: Any) -> None:
        with pytest.raises(GraphError, match="resources"):
            sp.Pipeline(range(9)).map(abs, resources=wrong)

    def test_channels_of_one_machine_are_refused(self) -> None:
        with pytest.raises(GraphError, match="leave transport= out"):
            self.tasks(sp.Pipeline(range(9)).map(abs), transport="zmq")


def received(wire: Wire) -> tuple[Tag, int, bytes]:
    """Wait for a message."""
    while (came := wire.receive()) is None:
        assert not wire.broken()
        poll = select.poll()
        for fd in wire.descriptors:
            poll.register(fd, select.POLLIN)
        assert not wire.quiet() or poll.poll(PATIENCE_MS)
    return came[0], came[1], bytes(came[2])


def broken(wire: Wire) -> bool:
    """Wait until the other side is gone."""
    while not wire.broken():
        wire.receive()
        poll = select.poll()
        for fd in wire.descriptors:
            poll.register(fd, select.POLLIN)
        if wire.quiet() and not poll.poll(PATIENCE_MS):
            return False
    return True


@given(
    skew_s=st.floats(-1e6, 1e6),
    ways=st.lists(st.tuples(st.floats(0, 50), st.floats(0, 50)), min_size=1, max_size=ROUNDS),
)
def test_another_clock_is_known_to_half_of_the_quickest_way(
    skew_s: float, ways: list[tuple[float, float]]
) -> None:
    skew, now_s = Skew(), 1000.0
    for there_s, back_s in ways:
        skew.add(now_s, now_s + there_s - skew_s, now_s + there_s + back_s)
        now_s += 100.0
    assert skew.error_s == pytest.approx(min(map(sum, ways)) / 2, abs=1e-6)
    assert abs(skew.seconds - skew_s) <= skew.error_s + 1e-6


class TestWire:
    def test_messages_and_an_end_go_both_ways(self) -> None:
        listening, address = listen("127.0.0.1")
        here, there = Wire(address, listening), Wire(address.public)
        listening.close()
        there.send(Tag.HELLO, 3, [b"one", b"two"])
        assert received(here) == (Tag.HELLO, 3, b"onetwo")
        large = bytes(range(256)) * 4096
        here.send(Tag.ENTRY, 0, [large])
        here.send(Tag.MORE, 1, ())
        assert received(there) == (Tag.ENTRY, 0, large)
        assert received(there) == (Tag.MORE, 1, b"")
        there.close()
        assert broken(here)
        here.close()

    def test_strangers_are_cut_off_and_stop_nobody(self) -> None:
        listening, address = listen("127.0.0.1")
        here = Wire(address, listening)
        listening.close()
        host, port = address.place.removeprefix("tcp://").split(":")
        with socket.create_connection((host, int(port))):
            other = replace(address.public, server=zmq.curve_keypair()[0])
            stranger = Wire(other)
            stranger.send(Tag.HELLO, 0, [b"let me in"])
            assert broken(stranger)
            stranger.close()
            there = Wire(address.public)
            there.send(Tag.HELLO, 0, [b"it is me"])
            assert received(here) == (Tag.HELLO, 0, b"it is me")
            there.close()
        here.close()

    def test_its_secret_stays_here(self) -> None:
        listening, address = listen("127.0.0.1")
        listening.close()
        assert address.secret
        assert not address.public.secret
        assert address.server.decode() not in repr(address)


class TestNotes:
    """What an actor says before it may die."""

    def row(self) -> memoryview:
        return memoryview(bytearray(8 * b.FIELDS)).cast("d")

    def test_the_last_word_is_heard(self) -> None:
        listener = Listener("127.0.0.1", b.FIELDS)
        with socket.create_connection((listener.address.host, listener.address.port)) as stranger:
            stranger.sendall(bytes(1 << 12))
            told = ToldRow(self.row(), listener.address, items=True)
            notes = Notes(cast(Any, told), items=True)
            for start in range(200):
                notes.begin(0, start, start + 1)
            notes.accuse(Accused(5, 0, 6, 7))
            older = told.numbered()
            told[b.STATE] = b.BUSY
            told.close()
            *_, last = listener.last()
        assert NUMBER.unpack_from(last) > NUMBER.unpack_from(older)
        row = memoryview(bytearray(last)[NUMBER.size :]).cast("d")
        site = site_of(row, 0)
        assert site is not None
        assert (site.start, site.item) == (199, Accused(5, 0, 6, 7))
        assert list(listener.last()) == []
        listener.close()

    def test_forged_notes_are_none(self) -> None:
        listener = Listener("127.0.0.1", b.FIELDS)
        forged = replace(listener.address, key=bytes(32))
        told = ToldRow(self.row(), forged, items=True)
        told[b.AT_EPOCH] = 1
        assert list(listener.last()) == []
        told.close()
        listener.close()

    def test_nobody_has_to_listen(self) -> None:
        listener = Listener("127.0.0.1", b.FIELDS)
        listener.close()
        for address in (None, listener.address):
            told = ToldRow(self.row(), address, items=True)
            told[b.AT_EPOCH] = 3
            assert told[b.AT_EPOCH] == 3
            told.close()


class TestDoor:
    def test_an_actor_of_this_machine_is_a_process_of_ours(self) -> None:
        doorway = Doorway()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stranger:
            stranger.connect(doorway.door.name)
            stranger.sendall(HELLO.pack(b"x" * 32, 7, 0))
            joined = enter(doorway.door, 7)
            assert joined is not None
            met = doorway.meet(7)
            assert met is not None
            assert stranger.recv(1) == b""
        line, life, pid = met
        ended: list[int] = []
        process = NearProcess(life, pid, lambda: ended.append(pid))
        assert process.exitcode is None
        for one in joined:
            one.close()
        process.join()
        assert process.exitcode == LOST
        process.close()
        assert ended == [pid]
        line.close()
        doorway.close()

    def test_from_another_machine_nobody_comes_in(self) -> None:
        doorway = Doorway()
        door = replace(doorway.door, name=b"\0splitpipe-nobody")
        assert enter(door, 1) is None
        doorway.close()

    def test_who_is_lost_is_no_reason_to_give_up(self) -> None:
        lost = Death(0, "decode", 0, 7, LOST, began=False)
        assert not lost.hopeless
        assert lost.text == (
            "worker 0 of stage 'decode' (pid 7) was lost: its actor, its node or the way to it is "
            "gone"
        )


VALUES = st.one_of(
    st.integers(),
    st.text(max_size=8),
    st.builds(lambda n: np.arange(n, dtype=np.int32), st.integers(0, 3000)),
    st.builds(lambda n: {"x": np.full((n, 3), n, np.float32), "n": n}, st.integers(0, 900)),
)


class TestBodies:
    @given(st.lists(VALUES, max_size=6))
    def test_they_come_out_of_memory_and_go_back_into_it(self, values: list[Any]) -> None:
        here, there = (ArenaLink(Bounds(8 << 20, 8, 4)) for _ in range(2))
        arenas, views = (here.writer(), there.writer()), (here.reader(), there.reader())
        made, away = Packer(arenas[0], wait=False), Packer(NowhereLink().writer())
        back = Packer(arenas[1], wait=False)
        for value in values:
            made.add(value)
        body = b"".join(made.pack())
        lifted = b"".join(repack(body, views[0], away))
        assert frozen(unpack(lifted, None)) == frozen(values)
        laid = b"".join(repack(lifted, None, back))
        assert frozen(unpack(laid, views[1])) == frozen(values)
        assert views[0].leases == views[1].leases == 0
        for one in (*arenas, *views, here, there):
            one.close()

    def test_many_atoms_at_once_stay_so(self) -> None:
        packer = Packer(None)
        packer.add_atoms([1, "two", 3.0])
        body = b"".join(packer.pack(bulk=True))
        assert unpack(b"".join(repack(body, None, packer)), None) == [1, "two", 3.0]
