"""What the project promises of its speed, as data.

Responsible for: the bars and their evaluation against results. Does not do: measuring.

Rules:
- a bar compares medians of one run; a reference that was not measured leaves it open, never met;
- a bar with several conditions is met when one of them is: they are alternatives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.harness import CaseResult

__all__ = ["BARS", "Bar", "Condition", "Verdict", "judge"]


@dataclass(frozen=True, slots=True)
class Condition:
    """``metric of system  >= or <=  factor x the reference``, or a plain number without one.

    Attributes:
        reference: A system of the same case, or None: `factor` is then absolute.
        reference_metric: Where the reference's figure has another name.
    """

    metric: str
    comparison: str
    factor: float
    reference: str | None = None
    system: str = "splitpipe"
    reference_metric: str | None = None


@dataclass(frozen=True, slots=True)
class Bar:
    """One promise."""

    text: str
    case: str
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a bar: `met` is None where it could not be judged."""

    bar: Bar
    met: bool | None
    figures: str


def _at_least(
    text: str,
    case: str,
    metric: str,
    factor: float,
    reference: str | None = None,
    *,
    system: str = "splitpipe",
) -> Bar:
    return Bar(text, case, (Condition(metric, ">=", factor, reference, system),))


def _at_most(
    text: str,
    case: str,
    metric: str,
    factor: float,
    reference: str | None = None,
    *,
    system: str = "splitpipe",
) -> Bar:
    return Bar(text, case, (Condition(metric, "<=", factor, reference, system),))


def _stored(text: str, case: str) -> Bar:
    return Bar(
        f"zstd, {text}: 0.45 of raw, or 1.03 x zstandard with a dictionary of the same records",
        case,
        (
            Condition("stored", "<=", 0.45, system="splitpipe-zstd"),
            Condition("stored", "<=", 1.03, "zstandard", system="splitpipe-zstd"),
        ),
    )


def _transport(text: str, case: str) -> tuple[Bar, ...]:
    """What is promised of 9.6 MB, of other batches."""
    return (
        *(
            _at_least(f"{text}, one worker, x {name}", case, "batches_s", factor, peer)
            for name, factor, peer in (
                ("inline", 0.8, "inline"),
                ("spdl pool", 1.8, "spdl"),
                ("torch DataLoader", 10.0, "torch"),
                ("MpQItr", 25.0, "splitdataloader"),
            )
        ),
        _at_most(f"{text}, consumer CPU, ms a batch", case, "consumer_ms", 0.1),
        _at_least(
            f"{text}, two workers, x one", case, "batches_s", 1.3, "splitpipe", system="splitpipe@2"
        ),
    )


_IMAGE = "batch_9.6MB"

BARS: tuple[Bar, ...] = (
    _at_least("W1 random [i], x lmdb", "w1_read", "get_rec_s", 2.0, "lmdb"),
    _at_least("W1 get_batch of 256, x lmdb", "w1_read", "batch_rec_s", 8.0, "lmdb"),
    *(
        _at_least(f"W1 {epoch} epoch, x {peer}", "w1_read", f"{epoch}_rec_s", 2.0, peer)
        for epoch in ("sequential", "shuffled")
        for peer in ("lmdb", "splitdataloader", "datasets", "arrow")
    ),
    _at_least(
        "W1 get_batch of 256, two threads, x one",
        "w1_threads",
        "batch_rec_s",
        1.7,
        "splitpipe",
        system="splitpipe@2",
    ),
    _at_least("W3 batches of 64 in one array, x numpy", "w3_rows", "rows_s", 0.9, "memmap"),
    _at_most("W1 writing, one durable commit, x lmdb", "w1_write", "write_s", 2.0, "lmdb"),
    _at_most("bytes on disk beyond each record's own", "w1_write", "overhead_bytes", 40.0),
    _at_most("opening 10 million records, ms", "open_10m", "open_ms", 20.0),
    _at_most("opening 10 million records, MB of heap", "open_10m", "heap_mb", 5.0),
    _at_least("12-150 KiB shuffled epoch, x memcpy", "w2_read", "shuffled_gb_s", 0.8, "memcpy"),
    _at_least("cold shuffled batches of 256, x disk", "cold", "gb_s", 0.7, "disk"),
    *(
        _at_least(f"W4 batch of 256, {what}, x {peer}", "w4_read", metric, 5.0, peer)
        for what, metric in (("all columns", "all_rec_s"), ("one column", "one_rec_s"))
        for peer in ("lmdb", "sqlite", "datasets", "data_forager")
    ),
    _at_most("where, by an index, 1 of 1,000 of 1,000,000, ms", "where", "indexed_ms", 20.0),
    # Both scan the same table: a twentieth is what two such scans differ by on a quiet machine.
    _at_most("where, json_extract, x sqlite3 (noise: 1.05)", "where", "json_ms", 1.05, "sqlite"),
    *(_stored(text, case) for text, case in (("W1", "zstd"), ("source text", "zstd_text"))),
    *(
        _at_least(
            f"zstd, {text}, random [i], x uncompressed",
            case,
            "get_rec_s",
            0.5,
            "splitpipe",
            system="splitpipe-zstd",
        )
        for text, case in (("W1", "zstd"), ("source text", "zstd_text"))
    ),
    _at_most("opening 100 million records, ms", "open_100m", "open_ms", 50.0),
    _at_most("opening 100 million records, MB of heap", "open_100m", "heap_mb", 10.0),
    _at_most(
        "tokenizing and packing, one worker, x encode_batch alone",
        "tokenize",
        "ns_token",
        1.1,
        "tokenizer",
    ),
    _at_most(
        "tokenizing and packing, no worker, x encode_batch alone",
        "tokenize",
        "ns_token",
        1.1,
        "tokenizer",
        system="inline",
    ),
    *_transport("9.6 MB", _IMAGE),
    _at_least("1 MB, x spdl pool", "batch_1MB", "batches_s", 1.5, "spdl"),
    *_transport("nested dicts of 4.8 MB", "batch_nested"),
    *_transport("0.1 to 20 MB", "batch_mixed"),
    # Headers travel beside payloads: a hundredth at most.
    *(
        _at_most(f"chain of three, {size}: payloads sent a boundary", f"chain_{size}", "sent", 1.01)
        for size in ("9.6MB", "1MB")
    ),
    # One write and its message; a second write would make it two. A megabyte is written in the time
    # that a message takes, and says nothing of that.
    _at_most("chain of three, 9.6MB: CPU a boundary, x one copy", "chain_9.6MB", "writes", 1.5),
    _at_least("pack: sequences planned, /s", "pack", "plan_s", 1e6),
    _at_most("pack: padding, x best fit decreasing", "pack", "padding", 1.0, "plain"),
    *(
        _at_most(f"bucket: padding of {what}, x batches", "bucket", f"{what}_padding", 0.5, "plain")
        for what in ("lines", "functions")
    ),
    _at_most("seen tiny tuples, x the time unseen", "seeing", "seen", 1.02),
    _at_most("seen and asked, x the time unseen", "seeing", "asked", 1.02),
    Bar(
        "tiny tuples, one boundary: 2.5 M/s, or 0.6 x inline",
        "tiny",
        (
            Condition("items_s", ">=", 2.5e6),
            Condition("items_s", ">=", 0.6, "inline"),
        ),
    ),
    _at_least("tiny tuples, three processes in a chain, /s", "chain", "items_s", 1.5e6),
    _at_most("slow generator: longest delay, ms", "delay", "slow_max_ms", 5.0),
    _at_most("last item of a burst: longest delay, ms", "delay", "last_of_burst_ms", 5.0),
    _at_least("5 ms against 5 ms, % of ideal", "overlap", "percent", 92.0),
    _at_least(
        "ordered heavy-tailed map, 2 workers, % of ideal",
        "ordered_map",
        "percent",
        92.0,
        system="splitpipe@2",
    ),
    # Two workers are at most twice a loader that delivers in order, so the ideal itself is mostly
    # less than three times torch; see `benchmarks.cases.tails`.
    *(
        Bar(
            f"one in ten 20 x slower, {how}, {where}: 3 x torch, or 90 % of the unordered ideal",
            f"tails_{case}",
            (
                Condition(where, ">=", 3.0, "torch@2", system="splitpipe-rows@2"),
                Condition(where, ">=", 90.0, system="splitpipe-rows@2"),
            ),
        )
        for case, how in (("waiting", "they wait"), ("computing", "they compute"))
        for where in ("random", "alternating", "clustered")
    ),
    *(
        _at_least(
            f"autotune, {work}, x {by_hand} by hand",
            "autotune",
            work,
            0.9,
            reference,
            system="splitpipe-auto",
        )
        for work in ("map", "decode")
        for by_hand, reference in (("one", "splitpipe-rows"), ("two", "splitpipe-rows@2"))
    ),
    *(
        _at_least(
            f"threads that decode, {name}, x {peer}",
            f"threads_{name}",
            "items_s",
            0.9,
            f"{peer}@2",
            system="splitpipe@2",
        )
        for name in ("zlib", "jpeg")
        for peer in ("spdl", "spdl-ordered")
    ),
    _at_most("first batch, ms", "first_batch", "first_ms", 150.0),
    _at_most("second epoch's first batch, ms", "first_batch", "second_epoch_ms", 15.0),
    _at_most("close after the end, ms", "first_batch", "close_ms", 100.0),
    _at_most("close in the middle, ms", "early_close", "close_ms", 100.0),
    _at_most("import beyond numpy, ms", "import", "import_ms", 60.0),
    # Allocators breathe: what grows with the epochs would be far beyond a few megabytes of 200.
    _at_most("growth over 200 epochs, MB", "memory", "growth_mb", 4.0),
)


def _holds(value: float, comparison: str, limit: float) -> bool:
    return value >= limit if comparison == ">=" else value <= limit


def _judge_one(condition: Condition, result: CaseResult) -> tuple[bool | None, str]:
    value = result.median(condition.system, condition.metric)
    if value is None:
        return None, "not measured"
    if condition.reference is None:
        met = _holds(value, condition.comparison, condition.factor)
        return met, f"{value:,.4g} ({condition.comparison} {condition.factor:,.4g})"
    name = condition.reference_metric or condition.metric
    reference = result.median(condition.reference, name)
    if not reference:
        return None, f"{condition.reference} not measured"
    ratio = value / reference
    met = _holds(ratio, condition.comparison, condition.factor)
    return met, f"{ratio:.2f} x ({condition.comparison} {condition.factor:g} x)"


def judge(results: Mapping[str, CaseResult]) -> list[Verdict]:
    """A verdict for every bar whose case was run."""
    verdicts = []
    for bar in BARS:
        if bar.case not in results:
            continue
        judged = [_judge_one(condition, results[bar.case]) for condition in bar.conditions]
        known = [met for met, _ in judged if met is not None]
        met = any(known) if known else None
        verdicts.append(Verdict(bar, met, "; or ".join(figures for _, figures in judged)))
    return verdicts
