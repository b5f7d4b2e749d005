"""Where streams join, and graphs with several ends.

Responsible for: the functions that make one pipeline out of several, and `run`, which runs several
at once. What a join does is said in `splitpipe.pipeline.stages`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

from splitpipe.dataset import Dataset
from splitpipe.dataset import concat as concat_datasets
from splitpipe.errors import GraphError
from splitpipe.pipeline.builder import Pipeline, joined, start
from splitpipe.pipeline.methods.base import StreamOptions, function_of, stage_options
from splitpipe.pipeline.plan import RunOptions
from splitpipe.pipeline.stage import Stage
from splitpipe.pipeline.stages import Concat, Interleave, Mix, Operation, Through, Zip

if TYPE_CHECKING:
    from splitpipe.loader import Loader

__all__ = ["concat", "interleave", "merge", "mix", "run", "stage", "zip"]


def stage(
    generator: Callable[..., Iterable[Any]],
    *inputs: Pipeline,
    workers: int | None = None,
    executor: str | None = None,
    capacity: int | None = None,
    resources: Mapping[str, float] | None = None,
    name: str | None = None,
    **kwargs: Any,
) -> Pipeline:
    """Return the pipeline of a free generator over one or several streams.

    It is called as ``generator(*iterators, **kwargs)``, anew for every epoch, in one worker, and
    takes from each input what it wants, when it wants. A parameter called ``rng`` gets a numpy
    Generator that depends on seed, stage and epoch alone.

    Args:
        generator: also an asynchronous one; its inputs are asynchronous iterators then.
        inputs: what it reads.
        workers: 1 for a worker of its own, 0 for the consumer's process; None to ride along.
        executor: ``"process"``, ``"thread"``, ``"inline"``, ``"ray"``; None: as for the whole run.
        capacity: most messages under way to its reader.
        resources: what its worker has of a Ray cluster; see `StreamOptions`.
        name: how it is called in messages and statistics.
        kwargs: handed to the generator.

    Raises:
        GraphError: an input is no pipeline, or their seeds differ.

    Example:
        >>> import splitpipe as sp
        >>> def matched(left, right):
        ...     other = dict(right)
        ...     for key, value in left:
        ...         yield key, value, other[key]
        >>> words = sp.Pipeline([(1, "one"), (2, "two")])
        >>> list(sp.stage(matched, words, sp.Pipeline([(2, "zwei"), (1, "eins")])))
        [(1, 'one', 'eins'), (2, 'two', 'zwei')]
    """
    if not inputs:
        raise GraphError("a stage reads at least one pipeline; sp.Pipeline(function) begins one")
    operation = Through(function_of("stage", generator), (), kwargs)
    options: StreamOptions = {
        "workers": workers,
        "executor": executor,
        "capacity": capacity,
        "resources": resources,
        "name": name,
    }
    return _join(operation, inputs, options)


def zip(
    *inputs: Pipeline | Mapping[str, Pipeline],
    uneven: str = "raise",
    **options: Unpack[StreamOptions],
) -> Pipeline:
    """Join items that belong together: tuples, or dicts where the inputs have names.

    Args:
        inputs: pipelines, or one mapping of names to pipelines.
        uneven: ``"raise"``: inputs of different lengths are an error that names the one that ended;
            ``"shortest"``: the epoch ends with the first that does.
        options: see `StreamOptions`.

    Example:
        >>> import splitpipe as sp
        >>> numbers = sp.Pipeline(range(2))
        >>> list(sp.zip({"x": numbers, "y": numbers.map(lambda x: x * x)}))
        [{'x': 0, 'y': 0}, {'x': 1, 'y': 1}]
    """
    names, pipelines = _named(inputs)
    return _join(Zip(names, uneven), pipelines, options)


def mix(
    inputs: Sequence[Pipeline] | Mapping[str, Pipeline],
    weights: Any = None,
    *,
    temperature: float = 1.0,
    stop: str = "all",
    method: str = "random",
    batch: int | None = None,
    **options: Unpack[StreamOptions],
) -> Pipeline:
    """Choose the input of every next item by weight; the same choices for the same seed and epoch.

    Args:
        inputs: what is mixed.
        weights: one for each input, of any sum (a mapping where the inputs have names); None: equal
            ones. Or a schedule: pairs ``(step, weights)``, each valid from that step on, or a
            function of the step; steps are the items that came out in this epoch.
        temperature: weights are raised to the power 1 / `temperature`: above 1 they become more
            equal.
        stop: ``"all"``: an input that has ended leaves, the epoch ends with the last;
            ``"first"``: it ends when the first has; ``"repeat"``: inputs that have ended begin
            anew, until each was read once.
        method: ``"random"``, or ``"even"``: as evenly as the weights allow; ``"stratified"``: every
            batch has each input's share, rounded down or up; ``"per-stream"``: every batch is of
            one input. In turn and one after the other: see `interleave` and `concat`. Datasets
            are mixed by exact numbers of samples, with random access, by `splitpipe.Streams`.
        batch: items of a batch, for the last two.
        options: see `StreamOptions`.

    Raises:
        GraphError: weights are negative, not finite, all zero, or not one for each input.

    Example:
        >>> import splitpipe as sp
        >>> parts = {"web": sp.Pipeline(["web"] * 6), "book": sp.Pipeline(["book"] * 2)}
        >>> list(sp.mix(parts, {"web": 3, "book": 1}, method="even").take(5))
        ['web', 'web', 'book', 'web', 'web']
    """
    names, pipelines = _named((inputs,) if isinstance(inputs, Mapping) else tuple(inputs))
    operation = Mix(len(pipelines), _weights(weights, names), temperature, stop, method, batch)
    return _join(operation, pipelines, options)


def interleave(*inputs: Pipeline, block: int = 1, **options: Unpack[StreamOptions]) -> Pipeline:
    """Let inputs take turns, up to `block` items each; one that has ended leaves the round.

    Example:
        >>> import splitpipe as sp
        >>> list(sp.interleave(sp.Pipeline(["A", "B"]), sp.Pipeline([1, 2, 3])))
        ['A', 1, 'B', 2, 3]
    """
    return _join(Interleave(block), inputs, options)


def merge(*inputs: Pipeline, **options: Unpack[StreamOptions]) -> Pipeline:
    """Join branches into one stream, item by item in turn: `interleave` for branches of one stream.

    The order is as exact as everything else: it does not depend on which branch is faster.
    Branches of very different length belong into `mix`, with their sizes as weights, or into
    `Pipeline.route`, which keeps the order of its input.

    Example:
        >>> import splitpipe as sp
        >>> parts = sp.Pipeline(range(6)).split_by(lambda x: x % 2, [0, 1])
        >>> list(sp.merge(parts[0].map(str), parts[1]))
        ['0', 1, '2', 3, '4', 5]
    """
    return _join(Interleave(1), inputs, {"name": "merge", **options})


def concat(*inputs: Any, **options: Unpack[StreamOptions]) -> Any:
    """Return one stream after the other; for datasets, one dataset of all their records.

    Args:
        inputs: pipelines, or datasets; or one list of them.
        options: see `StreamOptions`; for pipelines.

    Raises:
        GraphError: pipelines and datasets are mixed; wrap the datasets in `Pipeline`.
        FormatError: the datasets do not have the same schema.

    Example:
        >>> import splitpipe as sp
        >>> list(sp.concat(sp.Pipeline([1, 2]), sp.Pipeline([3])))
        [1, 2, 3]
    """
    if not inputs:
        raise GraphError("concat needs at least one pipeline, or dataset")
    if len(inputs) == 1 and not isinstance(inputs[0], (Pipeline, Dataset)):
        inputs = tuple(inputs[0])
    if any(isinstance(one, Pipeline) for one in inputs):
        return _join(Concat(), inputs, options)
    return concat_datasets(list(inputs))


def run(
    outputs: Mapping[str, Pipeline],
    *,
    states: Mapping[str, Mapping[str, Any]] | None = None,
    **options: Any,
) -> dict[str, Loader]:
    """Run several pipelines at once: what they share is made once.

    The loaders are read in step: one may be ahead of another by the capacity of the stage that
    they share (1024 items unless `Pipeline.tee` says more) and by one epoch. What is further behind
    is an error that names it (`BranchStalled`), never a wait for ever. A loader that is closed is
    waited for no longer; an error in one ends all.

    Args:
        outputs: what to run, by name.
        states: what each loader's `Loader.state_dict` returned, by the same names, at one moment:
            go on from there.
        options: those of `Pipeline.loader`.

    Raises:
        GraphError: the options or the stages cannot be run.
        ResumeError: the states are of another graph, or not of one moment.

    Example:
        >>> import splitpipe as sp
        >>> decoded = sp.Pipeline(range(4)).map(lambda x: x * 10)
        >>> loaders = sp.run({"train": decoded.batch(2), "seen": decoded}, executor="inline")
        >>> next(loaders["train"]).tolist(), next(loaders["seen"])
        ([0, 10], 0)
    """
    if not outputs or not all(isinstance(one, Pipeline) for one in outputs.values()):
        raise GraphError('run needs pipelines by name: sp.run({"train": a, "eval": b})')
    return start(outputs, RunOptions.of(**options), states)


def _join(operation: Operation, inputs: Sequence[Any], options: StreamOptions) -> Pipeline:
    if not inputs:
        raise GraphError(f"{operation.label} needs at least one pipeline")
    name = options.get("name") or operation.label
    return joined(Stage(operation, name, stage_options(options)), inputs)


def _named(inputs: Sequence[Any]) -> tuple[tuple[str, ...] | None, tuple[Pipeline, ...]]:
    if len(inputs) == 1 and isinstance(inputs[0], Mapping):
        return tuple(inputs[0]), tuple(inputs[0].values())
    return None, tuple(inputs)


def _weights(weights: Any, names: tuple[str, ...] | None) -> Any:
    """Return weights in the order of the inputs."""
    if not isinstance(weights, Mapping):
        return weights
    if names is None or set(weights) != set(names):
        raise GraphError(
            f"weights are given for {sorted(map(str, weights))}, the inputs are "
            f"{'not named' if names is None else sorted(names)}"
        )
    return [weights[name] for name in names]
