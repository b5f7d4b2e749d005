"""What cannot travel, and the words that say where it was."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

import splitpipe as sp
from splitpipe.transport.pickling import dump, dump_description, load

LOCK = threading.Lock()


def uses_a_global(x: int) -> int:
    with LOCK:
        return x


@dataclass(frozen=True)
class Decoder:
    name: str
    guard: Any

    def decode(self, x: int) -> int:
        return x


class Plain:
    def __init__(self, guard: Any) -> None:
        self.guard = guard

    def __call__(self, x: int) -> int:
        return x


def capturing(variable: Any) -> Callable[[int], Any]:
    return lambda x: (x, variable)


def nested(inner: Any) -> Callable[[int], Any]:
    def outer(x: int) -> Any:
        return inner(x)

    return outer


def stream(items: Iterator[Any], guard: Any) -> Iterator[Any]:
    yield from items


def make(lock: Any) -> dict[str, tuple[Any, str]]:
    return {
        "closure": (capturing(lock), "the variable 'variable' that <lambda> captures"),
        "closure-of-closure": (
            nested(capturing(lock)),
            "the variable 'variable' that <lambda> captures, in the variable 'inner' that outer",
        ),
        "in-a-dict": (
            capturing({"a": [1, lock]}),
            "item 1, in item 'a', in the variable 'variable' that <lambda> captures",
        ),
        "default": (lambda x, guard=lock: x, "default 0 of <lambda>"),
        "keyword-default": (
            lambda x, *, guard=lock: x,
            "the default of 'guard' of <lambda>",
        ),
        "partial": (functools.partial(stream, guard=lock), "the argument 'guard' of the partial"),
        "method": (
            Decoder("d", lock).decode,
            "the attribute 'guard', in the object that Decoder.decode is bound to",
        ),
        "callable": (Plain(lock), "the attribute 'guard' of the Plain"),
        "list": ([1, (2, lock)], "item 1, in item 1 of the list"),
    }


@pytest.mark.parametrize("name", make(None))
class TestWhere:
    def test_is_said_of_a_value(self, name: str) -> None:
        value, words = make(threading.Lock())[name]
        for way in (dump, dump_description):
            with pytest.raises(sp.NotPicklable) as caught:
                way(value)
            assert f"a '_thread.lock' object, {words}" in str(caught.value)

    def test_is_said_of_a_stage(self, name: str) -> None:
        value, words = make(threading.Lock())[name]
        pipe = sp.Pipeline(range(3)).through(stream, guard=value, workers=1, name="guarded")
        with pytest.raises(sp.NotPicklable, match="stage 'guarded' cannot travel") as caught:
            pipe.loader(start_method="forkserver")
        assert words.split(" of the ")[0].split(", in")[0] in str(caught.value)

    def test_nothing_is_said_where_all_is_well(self, name: str) -> None:
        value, _ = make("no lock")[name]
        assert type(load(dump(value))) is type(value)


def test_a_function_of_a_session_names_the_global_that_it_uses() -> None:
    scope: dict[str, Any] = {"guard": threading.Lock(), "__name__": "__main__"}
    exec("def locked(x):\n    with guard:\n        return x\n", scope)
    pipe = sp.Pipeline(range(3)).map(scope["locked"])
    with pytest.raises(sp.NotPicklable, match="the global 'guard' that locked uses"):
        pipe.loader(start_method="forkserver")


def test_by_reference_a_global_stays_where_it_is() -> None:
    assert load(dump_description(uses_a_global)) is uses_a_global


def test_what_fails_without_a_reason_is_an_error_all_the_same() -> None:
    class Refuses:
        def __reduce__(self) -> Any:
            raise RuntimeError("not me")

    with pytest.raises(sp.NotPicklable, match=r"Refuses cannot travel .* not me"):
        dump(Refuses())


def test_what_contains_itself() -> None:
    loop: list[Any] = [threading.Lock()]
    loop.append(loop)
    with pytest.raises(sp.NotPicklable, match="item 0 of the list"):
        dump(loop)


def test_large_values_are_not_searched_to_their_end() -> None:
    value = [0] * 100_000 + [threading.Lock()]
    with pytest.raises(sp.NotPicklable, match=r"a value of type list cannot travel"):
        dump(value)
