"""What holds a pipeline back, and what to do about it.

Responsible for: `diagnose`, a pure function from what tasks did in an interval to a `Diagnosis`.

Rules:
- every sentence rests on numbers of the interval, and shows them;
- the expected gain is a prediction that a test follows: it is computed from the model of
  `diagnosis`, and is None where the model has nothing to say;
- advice never changes what comes out of the pipeline, only how fast.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from splitpipe.runtime.diagnosis import Case, Diagnosis, Observation, gain_of, share_of, the
from splitpipe.runtime.statistics import StageStatistics, TaskStatistics

__all__ = ["Diagnosis", "Observation", "diagnose"]

SATURATED = 0.7
"""A task whose workers work this share of their time has no reserve worth speaking of."""
FEW = 0.1
STARVED = 0.4
"""The share of its time without a CPU from which nothing else that a run shows means much."""
MOST_WORKERS = 64
SMALL_ITEM_S = 20e-6
BANDWIDTH = 0.3
"""Share of the speed of copying from which a stage that makes arrays does little else: it writes
them once, and they are written into shared memory once more."""
SOURCES = ("read", "source")


def diagnose(observation: Observation) -> Diagnosis:
    """Return what held the pipeline back in the interval.

    Example:
        >>> worker = TaskStatistics(
        ...     "decode", 1, 100, 100, 0, 10.0, 0.1, 0.0, 0, 100, cpu_s=9.9, divisible=True
        ... )
        >>> loop = TaskStatistics("consumer", 0, 100, 100, 0, 10.0, 7.5, 0.0, 0, 0)
        >>> found = diagnose(Observation((worker, loop), elapsed_s=10.0, cpus=8))
        >>> found.kind, found.stage, found.workers
        ('workers', 'decode', 4)
    """
    case = Case(observation)
    for rule in _RULES:
        found = rule(case)
        if found is not None:
            return found
    return _window(case)


# -- the rules, the most certain first


def _inline(case: Case) -> Diagnosis | None:
    if case.tasks:
        return None
    return Diagnosis(
        "inline",
        "",
        "Everything runs in the consumer's own process, one item at a time: while the loop works, "
        "nothing is made, and the other way round.",
        "Run it with executor='process' to see what holds it back, and to have the next items made "
        "meanwhile.",
    )


def _nothing_yet(case: Case) -> Diagnosis | None:
    if case.consumer.items_in or case.consumer.copies:
        return None
    waiting = [task for task in case.tasks if task.start_s is None]
    if waiting:
        where = f"workers of {waiting[0].name!r} have not begun; they import what your script does"
    else:
        busiest = max(case.tasks, key=lambda task: task.busy_s)
        where = f"all workers are at work, most of all those of {busiest.name!r}"
    return Diagnosis(
        "unknown",
        "",
        f"No item has arrived in these {case.elapsed_s:.1f} s: {where}.",
        "Ask again when there are some.",
    )


def _startup(case: Case) -> Diagnosis | None:
    before, after = case.seen.startup_s, case.elapsed_s
    if before < after:
        return None
    starts = [task.start_s for task in case.tasks if task.start_s is not None]
    begun = min(max(starts, default=0.0), before)
    gain = (before + after) / after if case.consumer.items_in > 1 else None
    return Diagnosis(
        "start-up",
        "",
        f"The first item came {before:.1f} s after the beginning, of {before + after:.1f} s in "
        f"all: {begun:.1f} s until all workers were at work (they import what your script imports "
        f"and restore what its stages hold), {before - begun:.1f} s until they had made it.",
        "Start once: keep one loader for all epochs (epochs=n), import what only some need inside "
        "of their functions, and let stages open large things instead of carrying them. Over a "
        "long run this time does not count.",
        min(gain, 1000.0) if gain is not None else None,
    )


def _memory(case: Case) -> Diagnosis | None:
    worst = max(case.tasks, key=lambda task: share_of(task.wait_memory_s, task.running_s))
    share = share_of(worst.wait_memory_s, worst.running_s)
    if share > 2 * FEW:
        arena = f"{worst.arena_nbytes / 1e6:,.0f} MB in {worst.arena_slots} slots"
        if worst.arena_limit:
            arena += f" of {worst.arena_limit / 1e6:,.0f} MB that it may take"
        return Diagnosis(
            "memory",
            worst.name,
            f"{the(worst)} waited {share:.0%} of its time for a free slot of shared memory "
            f"({arena}).",
            "Raise arena_bytes, make batches smaller, or keep fewer of them in the loop.",
            gain_of(*(task.utilisation for task in case.seen.tasks), case.cpu_utilisation),
        )
    for task in case.tasks:
        if task.arena_refused > FEW * max(1, task.messages):
            return Diagnosis(
                "memory",
                task.name,
                f"{the(task)} had no slot of shared memory {task.arena_refused:,} times in "
                f"{task.messages:,} messages: that many batches went through a socket, which "
                "copies them several times.",
                "Raise arena_bytes until a few batches of every worker fit, or make batches "
                "smaller.",
            )
    return _copies(case)


def _copies(case: Case) -> Diagnosis | None:
    consumer = case.consumer
    if consumer.copies <= FEW * max(1, consumer.items_in):
        return None
    nbytes = sum(case.tasks[n].nbytes for n in consumer.reads) or case.tasks[-1].nbytes
    copied = nbytes * min(1.0, consumer.copies / max(1, consumer.items_in))
    speed = case.seen.copied_nbytes_s
    gain = None
    if speed is not None:
        share = min(0.9, copied / speed / case.elapsed_s)
        gain = gain_of(consumer.utilisation - share, case.others(consumer))
    return Diagnosis(
        "memory",
        "consumer",
        f"The loop keeps batches: {consumer.copies:,} of {consumer.items_in:,} had to be copied "
        "out of shared memory, so that their slots could be used again.",
        "Let go of batches when they are used (copy what has to stay), or raise prefetch.",
        gain,
    )


def _bandwidth(case: Case) -> Diagnosis | None:
    speed, slowest = case.seen.copied_nbytes_s, case.slowest
    if not speed:
        return None
    rate = slowest.nbytes / case.elapsed_s
    per_worker = rate / max(1, slowest.workers)
    if max(per_worker, rate / case.seen.cpus) < BANDWIDTH * speed:
        return None
    if slowest.utilisation < SATURATED:
        return None
    return Diagnosis(
        "memory",
        slowest.name,
        f"{the(slowest)} sends {rate / 1e9:.1f} GB/s while this machine copies memory at "
        f"{speed / 1e9:.1f} GB/s: its time goes into writing bytes, not into computing them.",
        "Make fewer bytes: a smaller dtype (uint8 or float16 instead of float32, converted where "
        "they are used), smaller arrays, fewer process boundaries. Half the bytes, twice the "
        "rate; more workers share the same memory.",
        min(2.0, gain_of(slowest.utilisation / 2, case.others(slowest) / 2)),
    )


def _consumer(case: Case) -> Diagnosis | None:
    consumer, waits = case.consumer, case.waiting
    if waits > 2 * FEW or consumer.utilisation < case.slowest.utilisation:
        return None
    local = f", stages {consumer.name} included," if consumer.name != "consumer" else ""
    advice = "The pipeline is ahead: nothing in it needs to be faster. "
    if local:
        advice += "Give the stages that run in the consumer's process workers=1, or m"
    else:
        advice += "M"
    advice += "ake the loop's own work faster, or give CPUs back by asking for fewer workers."
    worked = sum(task.cpu_s for task in case.tasks) / case.elapsed_s
    limits = [task.utilisation for task in case.tasks]
    gain = gain_of(*limits, worked / max(1e-9, case.used_cpus + case.free_cpus))
    return Diagnosis(
        "consumer",
        consumer.name if local else "consumer",
        f"The loop itself{local} takes {1 - waits:.0%} of the time; it waits {waits:.0%} of it for "
        f"items, while the busiest task ({case.slowest.name}) works {case.slowest.utilisation:.0%} "
        "of the time.",
        advice + " Were the loop's work free, the pipeline alone would set the pace.",
        gain,
    )


def _small(case: Case) -> Diagnosis | None:
    slowest = case.slowest
    overhead = slowest.overhead
    items = max(1, slowest.items_out)
    if overhead is None or overhead < 0.5 or slowest.utilisation < 0.5:
        return None
    if slowest.busy_s / items > SMALL_ITEM_S:
        return None
    work = sum(stage.busy_s for task in case.tasks for stage in task.stages)
    loop = case.consumer.busy_s
    inline = max(1e-9, (work + loop) / case.elapsed_s)
    return Diagnosis(
        "small",
        slowest.name,
        f"An item costs {the(slowest)} {slowest.busy_s / items * 1e6:.1f} µs, and "
        f"{overhead:.0%} of that is packing and moving it, not your code.",
        "Give a process more to do an item: batch before the boundary, let light stages ride with "
        "their neighbours (no workers=), or run everything with executor='inline'.",
        gain_of(inline),
    )


def _cpus(case: Case) -> Diagnosis | None:
    busy = sum(task.busy_s for task in case.tasks) / case.elapsed_s
    used_up = case.free_cpus <= max(0.15, FEW * case.seen.cpus) and case.used_cpus >= 0.5
    # Who waits for a CPU also waits for those who wait for one: nobody need be busy all the time.
    if case.starved < STARVED and not (used_up and case.slowest.utilisation >= 0.5):
        return None
    slowest = max(case.tasks, key=lambda task: task.cpu_s)
    workers = sum(task.workers for task in case.tasks)
    evidence = (
        f"No CPU is free: the run uses {case.used_cpus:.1f} of {case.seen.cpus:g}, most of it "
        f"in {the(slowest)} ({share_of(slowest.cpu_s, case.used_cpus * case.elapsed_s):.0%})"
    )
    if case.used_cpus < 0.8 * case.seen.cpus:
        evidence += ", and other programs have the rest"
    if case.starved >= FEW:
        evidence += (
            f"; {case.starved:.0%} of the time of its workers they could have run and had none"
        )
    if busy > 1.3 * case.used_cpus and workers > case.seen.cpus:
        evidence += f"; {workers} workers wanted {busy:.1f} at a time and kept each other waiting."
        fewer = max(1, math.floor(slowest.workers * case.used_cpus / busy))
        advice = f"Give {slowest.name!r} {fewer} workers instead of {slowest.workers}: the same "
        advice += "rate with less memory. For a higher one, it has to do less."
        return Diagnosis("cpus", slowest.name, evidence, advice, 1.0, fewer)
    stage = _heaviest(slowest)
    advice = f"More workers will not help; make {stage.name!r} cheaper, or use more CPUs."
    return Diagnosis("cpus", stage.name, evidence + ".", advice, 1.0)


def _slow_stage(case: Case) -> Diagnosis | None:
    task = case.slowest
    if task.utilisation < SATURATED:
        return None
    stage = _heaviest(task)
    share = 1.0 if stage.share is None else stage.share
    alone = len(task.stages) < 2 or share > 0.9
    part = "" if alone else f", {share:.0%} of it in {stage.name!r}"
    evidence = (
        f"{the(task)} works {task.utilisation:.0%} of the time{part}; the loop waits "
        f"{case.waiting:.0%} of it for items."
    )
    source = stage.name in SOURCES and task.stages and stage is task.stages[0]
    more = _more_workers(case, task)
    if more is not None:
        workers, gain = more
        advice = (
            f"Give it more workers: workers={workers} instead of {task.workers}; what "
            f"limits then is {case.next_limit(task)}."
        )
        return Diagnosis(
            "source" if source else "workers", stage.name, evidence, advice, gain, workers
        )
    if source:
        advice = (
            "Reading is what takes the time: keep the data nearer or in larger pieces, or use a "
            "source with random access (a dataset), which several workers can read."
        )
        advice += " (The gain is for half the time.)"
        halved = task.utilisation * (1 - share / 2)
        return Diagnosis("source", stage.name, evidence, advice, gain_of(halved, case.others(task)))
    rest = case.others(task)
    if not alone and case.free_cpus > 0.5:
        advice = f"Give {stage.name!r} a process of its own (workers=1)."
        parts = max(share, 1 - share) * task.utilisation
        return Diagnosis("stage", stage.name, evidence, advice, gain_of(parts, rest), 1)
    advice = (
        f"It needs the whole stream in order, so it has one process: make {stage.name!r} cheaper, "
        "or move work that treats each item by itself into a `map` before it, which may have "
        "workers. (The gain is for half its time.)"
    )
    halved = task.utilisation * (1 - share / 2)
    return Diagnosis("stage", stage.name, evidence, advice, gain_of(halved, rest))


def _window(case: Case) -> Diagnosis:
    task = case.slowest
    return Diagnosis(
        "window",
        task.name,
        f"Nobody is busy all the time: the loop waits {case.waiting:.0%} of it for items while "
        f"{the(task)} works {task.utilisation:.0%} of it. Items of very uneven cost, or bursts, "
        "leave workers idle because too few units may be under way.",
        "Raise prefetch, or capacity at that stage; where the order does not matter, "
        "ordered=False.",
        gain_of(*(t.utilisation for t in case.seen.tasks), case.cpu_utilisation),
    )


def _more_workers(case: Case, task: TaskStatistics) -> tuple[int, float] | None:
    """Return how many workers `task` should have, and what they would bring; None: no more."""
    if not task.divisible:
        return None
    rest = max([o.utilisation for o in case.seen.tasks if o is not task])
    cpu = share_of(task.cpu_s, task.busy_s)  # of a CPU, that a busy worker needs
    wanted = math.ceil(task.workers * task.utilisation / max(rest, 1e-2))
    possible = task.workers + math.floor((case.free_cpus + 0.25) / max(cpu, 1e-2))
    workers = max(task.workers, min(wanted, possible, MOST_WORKERS))
    if workers == task.workers:
        return None
    gain = gain_of(task.utilisation * task.workers / workers, rest)
    return workers, gain


_RULES: tuple[Callable[[Case], Diagnosis | None], ...] = (
    _inline,
    _nothing_yet,
    _startup,
    _memory,
    _consumer,
    _bandwidth,
    _small,
    _cpus,
    _slow_stage,
)


def _heaviest(task: TaskStatistics) -> StageStatistics:
    known = [stage for stage in task.stages if stage.share is not None]
    if not known:
        return StageStatistics(task.name)
    return max(known, key=lambda stage: stage.share or 0.0)
