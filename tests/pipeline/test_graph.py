"""Graphs as values: walking, names, seeds, and what is folded into sources."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import splitpipe as sp
from splitpipe.pipeline.graph import Body, Graph, Node, Part, make_graph, walk
from splitpipe.pipeline.plan import RunOptions, plan
from splitpipe.pipeline.source import FactorySource, SequenceSource


def f(x: Any) -> Any:
    return x


def drawn(x: Any, rng: Any) -> Any:
    return x, rng


def stream(items: Iterator[Any]) -> Iterator[Any]:
    yield from items


SEQUENCE = sp.Pipeline(range(100))
FACTORY = sp.Pipeline(lambda: iter(()))


def graph(*pipes: sp.Pipeline) -> Graph:
    return make_graph({str(number): pipe.node for number, pipe in enumerate(pipes)})


def names(made: Graph) -> list[str]:
    return [node.stage.name for node in made.nodes if node.stage is not None]


def sources(made: Graph) -> list[Any]:
    return [node.source for node in made.nodes if node.source is not None]


class TestWalk:
    def test_every_node_once_and_after_its_inputs(self) -> None:
        p = FACTORY.map(f)
        pipe = sp.zip(p.map(f), sp.zip(p, p.map(f)), p)
        nodes = walk([pipe.node, p.node])
        assert len(nodes) == len(set(nodes)) == 6
        for number, node in enumerate(nodes):
            assert all(nodes.index(one) < number for one in node.inputs)

    def test_depends_on_the_graph_alone(self) -> None:
        def make() -> sp.Pipeline:
            p = FACTORY.map(f, name="a")
            return sp.concat(p.map(f, name="b"), p.map(f, name="c"), p)

        assert [n.name for n in walk([make().node])] == [n.name for n in walk([make().node])]
        assert [n.name for n in walk([make().node])] == ["source", "a", "b", "c", "concat"]

    def test_neither_depth_nor_width_is_too_much(self) -> None:
        deep = FACTORY
        for _ in range(3000):
            deep = deep.map(f)
        assert len(walk([deep.node])) == 3001
        ladder = FACTORY
        for _ in range(500):
            ladder = sp.zip(ladder, ladder)
        assert len(walk([ladder.node])) == 501
        assert repr(ladder).endswith("zip-499] > zip(zip-500)")
        assert repr(ladder).count("zip-7)") == 1

    @pytest.mark.parametrize("length", [1, 2, 5])
    def test_a_circle_is_refused(self, length: int) -> None:
        pipe = SEQUENCE
        for number in range(length):
            pipe = pipe.map(f, name=f"stage-{number}")
        first = walk([pipe.node])[1]
        object.__setattr__(first, "inputs", (pipe.node,))
        for use in (len, repr, list, lambda one: one.explain(), lambda one: sp.zip(one, one)):
            with pytest.raises(sp.CycleError, match=r"'stage-\d' is fed by what it feeds"):
                use(pipe)  # type: ignore[operator]


class TestNames:
    def test_are_made_different(self) -> None:
        p = FACTORY.map(f)
        assert names(graph(sp.zip(p.map(f), p.map(f), name="f"))) == ["f", "f-2", "f-3", "f-4"]

    def test_that_were_given_to_others_are_not_taken(self) -> None:
        made = names(graph(FACTORY.map(f, name="f-2").map(f).map(f).map(f, name="f")))
        assert len(set(made)) == 4
        assert made[0] == "f-2"

    def test_of_several_outputs_differ_too(self) -> None:
        assert names(graph(FACTORY.map(f), FACTORY.filter(f))) == ["f", "f-2"]

    def test_belong_to_the_graph_and_not_to_the_pipeline(self) -> None:
        p = FACTORY.map(f)
        q = FACTORY.map(f)
        assert names(graph(p)) == names(graph(q)) == ["f"]
        assert [stage.name for stage in sp.zip(p, q).stages] == ["f", "f-2", "zip"]

    def test_do_not_change_random_numbers_of_what_was_named(self) -> None:
        def number(x: int, rng: Any) -> int:
            return int(rng.integers(1 << 40))

        p = sp.Pipeline(range(9), seed=3)
        alone = list(p.map(number, name="crop"))
        joined = sp.concat(p.map(number), p.map(number, name="crop"))
        assert list(joined)[9:] == alone
        assert list(joined)[:9] != alone


class TestSeeds:
    def test_that_differ_are_refused(self) -> None:
        one, other = sp.Pipeline(range(3), seed=1), sp.Pipeline([1, 2], seed=2)
        for join in (
            lambda: sp.zip(one, other),
            lambda: sp.mix([one.map(f), other]),
            lambda: sp.stage(lambda a, b: a, one, other),
        ):
            with pytest.raises(sp.GraphError, match=r"range\(0, 3\) has the seed 1, \[1, 2\] has"):
                join()
        with pytest.raises(sp.GraphError, match="one graph has one seed"):
            sp.run({"a": one, "b": other}, executor="inline")

    def test_that_are_the_same_are_the_graphs(self) -> None:
        one, other = sp.Pipeline(range(3), seed=7), sp.Pipeline([1, 2], seed=7)
        assert graph(sp.concat(one, other)).seed == 7


class TestInputs:
    @pytest.mark.parametrize("other", [[1, 2], range(3), None, iter(()), f], ids=repr)
    def test_that_are_no_pipelines_are_refused(self, other: Any) -> None:
        for join in (
            lambda: sp.zip(SEQUENCE, other),
            lambda: sp.interleave(other, SEQUENCE),
            lambda: sp.stage(stream, other),
            lambda: sp.concat(SEQUENCE, other),
        ):
            with pytest.raises(sp.GraphError, match="reads pipelines, not a"):
                join()
        with pytest.raises(sp.GraphError, match="needs pipelines by name"):
            sp.run({"a": other})

    def test_that_are_missing_are_refused(self) -> None:
        for join in (sp.zip, sp.interleave, sp.concat, sp.merge):
            with pytest.raises(sp.GraphError, match="needs at least one pipeline"):
                join()
        with pytest.raises(sp.GraphError, match="reads at least one pipeline"):
            sp.stage(stream)
        with pytest.raises(sp.GraphError, match="needs pipelines by name"):
            sp.run({})


class TestSources:
    def test_with_random_access_are_read_by_each_for_itself(self) -> None:
        p = SEQUENCE
        made = graph(sp.zip(p.map(f), p, p.map(f)))
        assert len(sources(made)) == 3
        assert all(len(readers) == 1 for readers in made.readers().values())

    def test_without_it_are_shared(self) -> None:
        made = graph(sp.zip(FACTORY.map(f), FACTORY, FACTORY.map(f)))
        assert len(sources(made)) == 1
        assert sorted(map(len, made.readers().values())) == [1, 1, 1, 3]

    def test_two_of_the_same_data_are_two(self) -> None:
        def items() -> list[int]:
            return [1, 2]

        pipe = sp.zip(sp.Pipeline(items), sp.Pipeline(items))
        assert len(sources(graph(pipe))) == 2
        assert list(pipe) == [(1, 1), (2, 2)]


class TestTake:
    def test_bounds_one_branch_and_not_the_other(self) -> None:
        made = graph(SEQUENCE.map(f).take(3), SEQUENCE.map(f))
        bounds = sorted(n.positions or 0 for n in made.nodes if n.source is not None)
        assert bounds == [3, 100]
        assert not any(name.startswith("take") for name in names(made))

    def test_stays_behind_what_several_read(self) -> None:
        shared = SEQUENCE.map(f)
        made = graph(shared.take(3), shared)
        assert "take(3)" in names(made)
        assert [n.positions for n in made.nodes if n.source is not None] == [100]
        assert list(sp.concat(shared.take(3), shared)) == [0, 1, 2, *range(100)]

    def test_stays_behind_a_join(self) -> None:
        assert "take(3)" in names(graph(sp.zip(SEQUENCE, SEQUENCE).take(3)))


class TestRepeat:
    @pytest.mark.parametrize(
        ("pipe", "left", "passes"),
        [
            (SEQUENCE.repeat(3), 0, 3),
            (SEQUENCE.map(f).filter(f).repeat(3), 0, 3),
            (SEQUENCE.repeat(2).repeat(3), 1, 2),
            (FACTORY.map(f).repeat(3), 0, 3),
            (SEQUENCE.batch(3).repeat(3), 1, 1),
            (SEQUENCE.through(stream).repeat(3), 1, 1),
            (sp.zip(SEQUENCE).repeat(3), 1, 1),
        ],
        ids=repr,
    )
    def test_is_the_sources_where_items_stand_for_themselves(
        self, pipe: sp.Pipeline, left: int, passes: int
    ) -> None:
        made = graph(pipe)
        assert sum(name.startswith("repeat") for name in names(made)) == left
        assert [source.passes for source in sources(made)] == [passes]

    def test_is_not_where_another_branch_reads_too(self) -> None:
        shared = FACTORY.map(f)
        assert "repeat(2)" in names(graph(shared.repeat(2), shared))

    @pytest.mark.parametrize("n", [0, 1, 3])
    @pytest.mark.parametrize("count", [1, 2, 5])
    def test_gives_every_pass(self, n: int, count: int) -> None:
        for begin in (sp.Pipeline(range(n)), sp.Pipeline(lambda: iter(range(n)))):
            for pipe in (begin, begin.map(f), begin.through(stream)):
                assert list(pipe.repeat(count)) == list(range(n)) * count

    def test_for_ever_of_nothing_is_nothing(self) -> None:
        for begin in (sp.Pipeline([]), sp.Pipeline(list)):
            for pipe in (begin, begin.filter(f), begin.through(stream)):
                assert list(pipe.repeat()) == []

    def test_then_take(self) -> None:
        assert list(sp.Pipeline(range(3)).repeat().take(7)) == [0, 1, 2, 0, 1, 2, 0]
        assert list(sp.Pipeline(range(3)).through(stream).repeat().take(4)) == [0, 1, 2, 0]


class TestLength:
    @pytest.mark.parametrize(
        ("pipe", "length"),
        [
            (sp.zip(SEQUENCE, SEQUENCE.map(f)), 100),
            (sp.zip(SEQUENCE, SEQUENCE.take(7), uneven="shortest"), 7),
            (sp.concat(SEQUENCE, SEQUENCE.batch(3)), 134),
            (sp.interleave(SEQUENCE, SEQUENCE.take(5)), 105),
            (sp.mix([SEQUENCE, SEQUENCE]), 200),
            (SEQUENCE.tee()[0], 100),
        ],
        ids=repr,
    )
    def test_is_what_comes(self, pipe: sp.Pipeline, length: int) -> None:
        assert len(pipe) == length == len(list(pipe))

    @pytest.mark.parametrize(
        "pipe",
        [
            sp.zip(SEQUENCE, SEQUENCE.filter(f)),
            sp.concat(SEQUENCE, FACTORY),
            sp.mix([SEQUENCE, SEQUENCE], stop="first"),
            sp.stage(stream, SEQUENCE),
        ],
        ids=repr,
    )
    def test_is_not_known_where_only_running_tells(self, pipe: sp.Pipeline) -> None:
        with pytest.raises(TypeError, match="not known"):
            len(pipe)


class TestNumbering:
    def parts(self, pipe: sp.Pipeline, **options: Any) -> dict[str, bool]:
        made = plan({"": pipe.node}, RunOptions(**options))
        bodies: list[Body] = [task.body for task in made.tasks]
        bodies += [local.body for local in made.locals]
        return {
            f"{number}.{part.stage.name if part.stage else 'head'}": part.numbered
            for number, body in enumerate(bodies)
            for part in body.parts
        }

    def test_reaches_from_what_asks_to_what_counts(self) -> None:
        pipe = SEQUENCE.map(f).batch(2).filter(f).map(drawn)
        numbered = self.parts(pipe, executor="inline")
        assert numbered == {
            "0.head": False,
            "0.f": False,
            "0.batch(2)": True,
            "0.f-2": True,
            "0.drawn": False,
        }

    def test_crosses_processes(self) -> None:
        numbered = self.parts(SEQUENCE.through(stream, workers=1).map(drawn, workers=2))
        assert numbered == {
            "0.head": False,
            "0.stream": True,
            "1.head": True,
            "1.drawn": False,
            "2.head": False,  # the consumer's
        }

    def test_costs_nothing_where_nobody_asks(self) -> None:
        assert not any(self.parts(sp.zip(SEQUENCE.map(f), SEQUENCE)).values())


class TestBody:
    def test_knows_its_heads_and_its_name(self) -> None:
        (task,) = plan({"": sp.zip(SEQUENCE.map(f), FACTORY).node}, RunOptions()).tasks
        kinds = {type(task.body.parts[head].source) for head in task.body.heads}
        assert kinds == {SequenceSource, FactorySource}
        assert task.body.name == "f > zip"
        assert task.body.source is None

    def test_says_what_reads_it(self) -> None:
        p = FACTORY.map(f)
        made = plan({"a": p.node, "b": p.map(f, workers=1, name="g").node}, RunOptions())
        body = made.tasks[0].body
        assert [body.reader(output) for output in range(2)] == ["g", "a"]
        assert Body((Part(),), (0,)).reader(0) == "output 0"

    def test_of_a_relay(self) -> None:
        p = SEQUENCE.map(f, workers=2)
        made = plan({"a": p.node, "b": p.node}, RunOptions())
        assert [task.body.name for task in made.tasks] == ["f", "relay"]


def test_a_node_is_a_value() -> None:
    node = Node()
    with pytest.raises(AttributeError):
        node.inputs = ()  # type: ignore[misc]
