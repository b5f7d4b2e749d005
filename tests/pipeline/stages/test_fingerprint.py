"""A fingerprint: the same for the same graph, in every process; another for any other."""

from __future__ import annotations

import functools
import subprocess
import sys
import textwrap
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import splitpipe as sp
from splitpipe.errors import GraphError
from splitpipe.pipeline.stages import Batch, Filter, FlatMap, Map, Take
from splitpipe.pipeline.stages.fingerprint import fingerprint


def made(source: str, **values: Any) -> Any:
    """The function `f` of a program."""
    module = ModuleType("program")
    module.__dict__.update(values)
    exec(textwrap.dedent(source), module.__dict__)
    return module.f


def test_equal_functions_are_equal_wherever_they_stand() -> None:
    text = "def f(x, y=2):\n    return [x * k for k in range(y)]"
    assert fingerprint(made(text)) == fingerprint(made("\n\n\n" + text))


@pytest.mark.parametrize(
    ("first", "other"),
    [
        ("def f(x): return x + 1", "def f(x): return x + 2"),
        ("def f(x): return x + 1", "def f(x): return x - 1"),
        ("def f(x): return x.real", "def f(x): return x.imag"),
        ("def f(x, y=1): return x", "def f(x, y=2): return x"),
        ("def f(x, *, y=1): return x", "def f(x, *, y=2): return x"),
        ("f = lambda x: [i + 1 for i in x]", "f = lambda x: [i + 2 for i in x]"),
        ("K = 1\ndef f(x): return x + K", "K = 2\ndef f(x): return x + K"),
        (
            "def h(x): return g(x)\ndef g(x): return 1\ndef f(x): return h(x)",
            "def h(x): return g(x)\ndef g(x): return 2\ndef f(x): return h(x)",
        ),
        ("def f(x): return x in {'a', 'b'}", "def f(x): return x in {'a', 'c'}"),
        ("def f(x): return 1", "def f(x): return True"),
        ("def f(x): return 1", "def f(x): return 1.0"),
        ("def f(x): return 0.0", "def f(x): return -0.0"),
        ("import math\ndef f(x): return math.pi", "import cmath as math\ndef f(x): return math.pi"),
        (
            "class C:\n    def g(self): return 1\ndef f(x): return C().g()",
            "class C:\n    def g(self): return 2\ndef f(x): return C().g()",
        ),
        (
            "import functools\n@functools.lru_cache\ndef g(x): return 1\ndef f(x): return g(x)",
            "import functools\n@functools.lru_cache\ndef g(x): return 2\ndef f(x): return g(x)",
        ),
    ],
)
def test_what_makes_a_difference_is_seen(first: str, other: str) -> None:
    assert fingerprint(made(first)) != fingerprint(made(other))
    assert fingerprint(made(first)) == fingerprint(made(first))


def test_an_attribute_is_no_global() -> None:
    text = "def f(x): return x.lock"
    assert fingerprint(made(text, lock=threading.Lock())) == fingerprint(made(text))


def closure(value: Any) -> Any:
    return lambda x: (x, value)


class Colour(Enum):
    RED = 1
    BLUE = 2


@dataclass(frozen=True)
class Settings:
    size: int
    names: tuple[str, ...] = ()
    more: dict[str, Any] = field(default_factory=dict)

    def scale(self, x: int) -> int:
        return x * self.size


VALUES: list[Any] = [
    None,
    0,
    False,
    0.0,
    1.5,
    2**70,
    "",
    "a",
    b"a",
    (),
    [],
    {},
    set(),
    frozenset(),
    (1, 2),
    [1, 2],
    [2, 1],
    [[1], 2],
    {1: 2},
    {2: 1},
    {1, 2},
    frozenset({1, 2}),
    OrderedDict({1: 2}),
    {"a": {"b": [1]}},
    np.arange(3),
    np.arange(3.0),
    np.arange(3).reshape(3, 1),
    np.array([None, 1]),
    np.float32(1.5),
    np.dtype("int8"),
    range(3),
    slice(3),
    Path("a"),
    Colour.RED,
    Colour.BLUE,
    Colour,
    Settings(1),
    Settings(2),
    Settings(1, ("a",)),
    Settings(1).scale,
    Settings(2).scale,
    Settings,
    functools.partial(int, base=2),
    functools.partial(int, base=3),
    len,
    np.sum,
    np.add,
    "a".join,
    "b".join,
    np,
    int,
    str.upper,
    closure(1),
    closure(2),
    np.random.default_rng(1),
    Map(len),
    Map(abs),
    Filter(abs),
    FlatMap(abs),
    Take(3),
    Take(4),
    Batch(3),
    Batch(3, drop_last=True),
    sp.Pad(value=1) if hasattr(sp, "Pad") else ...,
]


def test_different_values_have_different_fingerprints() -> None:
    prints = [fingerprint(value) for value in VALUES]
    assert len(set(prints)) == len(prints)
    assert prints == [fingerprint(value) for value in VALUES]
    assert all(len(one) == 32 and int(one, 16) >= 0 for one in prints)


def test_sharing_makes_no_difference_and_cycles_end() -> None:
    one = [1]
    assert fingerprint([one, one]) == fingerprint([[1], [1]])
    loop: list[Any] = [1]
    loop.append(loop)
    other: list[Any] = [1]
    other.append(other)
    assert fingerprint(loop) == fingerprint(other) != fingerprint([1])
    recursive = "def f(x): return f(x - 1) if x else 0"
    assert fingerprint(made(recursive)) == fingerprint(made(recursive))


PROGRAM = """
from splitpipe.pipeline.stages import Batch, Map
from splitpipe.pipeline.stages.fingerprint import fingerprint
NAMES = {"a", "b", "c", "dd"}
class Scale:
    def __init__(self, by): self.by = by
    def __call__(self, x): return x * self.by if x in NAMES else helper(x)
def helper(x): return {x, 1, 2}
print(fingerprint([Map(Scale(3)), Map(lambda x: x in {"x", "y", "zz"}), Batch(3)], range(9)))
"""


def test_it_is_the_same_in_another_process() -> None:
    found = {
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={"PYTHONHASHSEED": seed, "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1


def test_a_module_of_the_users_is_its_file_and_what_that_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "deeper_helpers.py").write_text("def deep(x):\n    return x\n")
    (tmp_path / "outer_helpers.py").write_text("import deeper_helpers\n")

    def found() -> str:
        for name in ("outer_helpers", "deeper_helpers"):
            sys.modules.pop(name, None)
        import outer_helpers  # type: ignore[import-not-found]

        return fingerprint(
            made("def f(x): return outer.deeper_helpers.deep(x)", outer=outer_helpers)
        )

    try:
        first = found()
        assert first == found()
        (tmp_path / "deeper_helpers.py").write_text("def deep(x):\n    return x + 1\n")
        assert first != found()
    finally:
        for name in ("outer_helpers", "deeper_helpers"):
            sys.modules.pop(name, None)


def test_a_dataset_is_its_path_and_its_snapshot(tmp_path: Path) -> None:
    paths = [tmp_path / "one", tmp_path / "two"]
    for path in paths:
        sp.write_split_data(str(path), [b"a", b"b", b"c"])
    one, again, two = (sp.open_dataset(str(path)) for path in (paths[0], paths[0], paths[1]))
    with one, again, two:
        assert fingerprint(one) == fingerprint(again) != fingerprint(two)
        assert fingerprint(one.subset([0, 1])) == fingerprint(again.subset([0, 1]))
        assert fingerprint(one.subset([0, 1])) != fingerprint(one.subset([0, 2]))


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (closure(threading.Lock()), r"a lock cannot be identified \(in closure.* variable 'value'"),
        (closure(iter(x for x in ())), "a generator cannot be identified"),
        (made("def f(x): return lock", lock=threading.Lock()), r"global 'lock'"),
        (made("def f(x): return m.g", m=ModuleType("m")), "the module 'm' cannot be identified"),
    ],
)
def test_what_cannot_be_identified_is_refused(value: Any, match: str) -> None:
    with pytest.raises(GraphError, match=match):
        fingerprint(value)
