"""Values that a function makes of records, by the kernel in C and by its twin in Python."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from tests.storage.kernels import KERNELS, Made

LIMIT = 0x80


class Makers:
    """Makes functions that give a record's length, and sees that nobody shares one."""

    def __init__(self) -> None:
        self.made = 0
        self.inside: Callable[[], Any] = lambda: None

    def __call__(self) -> Callable[[bytes], int]:
        self.made += 1
        busy = threading.Lock()

        def length(record: bytes) -> int:
            assert busy.acquire(blocking=False), "two callers use one function"
            try:
                self.inside()
                return len(record)
            finally:
                busy.release()

        return length


@pytest.fixture
def made() -> Made:
    return Made([bytes([n]) * (n + 1) for n in range(200)] + [b"", b"\x01" * 70_000])


@pytest.mark.parametrize("module", KERNELS)
class TestDecoded:
    def test_values_of_rows(self, module: Any, made: Made) -> None:
        makers = Makers()
        value = made.open(module).decoded(makers, LIMIT)
        assert [value(row) for row in range(LIMIT)] == list(range(1, LIMIT + 1))
        assert value(201) == 70_000
        assert makers.made == 1

    @pytest.mark.parametrize("row", [LIMIT, 199, 200, 202, -203, 2**70, "5", None, 1.0])
    def test_what_is_not_for_it(self, module: Any, made: Made, row: Any) -> None:
        makers = Makers()
        assert made.open(module).decoded(makers, LIMIT)(row) is None
        assert makers.made == 0

    def test_what_is_damaged_or_not_attached(self, module: Any, made: Made) -> None:
        made.damage(7, crc=1)
        assert made.open(module).decoded(Makers(), LIMIT)(7) is None
        column = made.open(module, attached=False)
        value = column.decoded(Makers(), LIMIT)
        assert value(5) is None
        column.attach(2, bytes(made.bins[2]))
        assert value(5) == 6
        column.close()
        assert value(5) is None

    def test_a_function_that_raises_is_thrown_away(self, module: Any, made: Made) -> None:
        makers = Makers()
        value = made.open(module).decoded(makers, LIMIT)
        assert value(3) == 4

        def fail() -> None:
            raise ValueError("no frame")

        makers.inside = fail
        assert value(3) is None
        makers.inside = lambda: None
        assert value(3) == 4
        assert makers.made == 2

    def test_what_cannot_be_made(self, module: Any, made: Made) -> None:
        def make() -> Any:
            raise ImportError("no library")

        assert made.open(module).decoded(make, LIMIT)(3) is None

    def test_an_interrupt_is_not_for_us(self, module: Any, made: Made) -> None:
        def interrupt() -> None:
            raise KeyboardInterrupt

        makers = Makers()
        makers.inside = interrupt
        with pytest.raises(KeyboardInterrupt):
            made.open(module).decoded(makers, LIMIT)(3)

    def test_who_comes_while_it_works_gets_another(self, module: Any, made: Made) -> None:
        makers = Makers()
        value = made.open(module).decoded(makers, LIMIT)
        depth: list[int] = []

        def inside() -> None:
            if len(depth) < 20:
                depth.append(len(depth))
                assert value(9) == 10

        makers.inside = inside
        assert value(9) == 10
        assert makers.made == 21

    def test_threads_never_share_a_function(self, module: Any, made: Made) -> None:
        makers = Makers()
        value = made.open(module).decoded(makers, LIMIT)
        begin = threading.Barrier(4)
        wrong: list[Any] = []

        def reading() -> None:
            begin.wait()
            wrong.extend(n for n in range(3000) if value(n % LIMIT) != n % LIMIT + 1)

        threads = [threading.Thread(target=reading) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        assert makers.made <= 4

    def test_what_goes_round_in_a_circle_is_found(self, module: Any, made: Made) -> None:
        makers = Makers()
        value = made.open(module).decoded(makers, LIMIT)
        assert value(3) == 4
        makers.inside = lambda value=value: value(4)
        gone = weakref.ref(makers)
        del makers, value
        gc.collect()
        assert gone() is None


def test_what_is_no_row() -> None:
    for parameter in KERNELS:
        module = parameter.values[0]
        if module is None:
            continue
        value = Made([b"1"]).open(module).decoded(Makers(), LIMIT)
        for arguments in ((), (1, 2)):
            with pytest.raises(TypeError):
                value(*arguments)
