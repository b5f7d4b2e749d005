"""Results in words: a table a case, the verdicts, JSON, Markdown.

Responsible for: presentation. Rules: every figure stands with its spread (lowest to highest round),
a ratio of more than one is always in favour of the row's system, and a missing figure says why.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.bars import Verdict
from benchmarks.base import Case, Metric
from benchmarks.harness import CaseResult, SystemResult
from benchmarks.systems import SYSTEMS, parse

__all__ = ["head_lines", "markdown", "number", "table", "verdict_lines", "write_json"]


def number(value: float) -> str:
    """A figure to three digits, with a suffix where it is large.

    >>> [number(value) for value in (0.01234, 5.678, 123.4, 45678.0, 3456789.0)]
    ['0.0123', '5.68', '123', '45.7k', '3.46M']
    """
    for limit, suffix in ((1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            return f"{value / {'M': 1e6, 'k': 1e3}[suffix]:.3g}{suffix}"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _cell(result: SystemResult, baseline: SystemResult | None, metric: Metric) -> str:
    values = result.values(metric.name)
    if not values:
        return "-"
    median = result.median(metric.name)
    assert median is not None
    text = f"{number(median)} ({number(min(values))}..{number(max(values))})"
    reference = baseline.median(metric.name) if baseline else None
    if baseline is None or baseline is result or not reference:
        return text
    if min(reference, median) <= 0:  # a growth, say: there is no ratio to speak of
        return text
    ratio = median / reference if metric.higher_is_better else reference / median
    return f"{text} {ratio:.2f}x"


def _rows(case: Case, result: CaseResult) -> list[list[str]]:
    baseline = result.systems.get(case.baseline)
    if baseline is not None and baseline.skipped is not None:
        baseline = None
    head = ["system", "n", *(f"{metric.name} [{metric.unit}]" for metric in case.metrics)]
    rows = [head]
    for name, system in result.systems.items():
        if system.rounds:
            cells = [_cell(system, baseline, metric) for metric in case.metrics]
            rows.append([name, str(len(system.rounds)), *cells])
    return rows


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _skips(result: CaseResult) -> list[str]:
    return [f"{name}: {s.skipped}" for name, s in result.systems.items() if s.skipped]


def table(case: Case, result: CaseResult) -> str:
    """One case as aligned text."""
    lines = ["", f"{case.title}   [{case.name}; ratios against {case.baseline}]"]
    lines += _aligned(_rows(case, result))
    lines += [f"  no figure for {line}" for line in _skips(result)]
    return "\n".join(lines)


def _word(verdict: Verdict) -> str:
    return {True: "met", False: "MISSED", None: "open"}[verdict.met]


def verdict_lines(verdicts: Sequence[Verdict]) -> str:
    """The bars as aligned text."""
    if not verdicts:
        return ""
    rows = [[_word(v), v.bar.case, v.bar.text, v.figures] for v in verdicts]
    met = sum(v.met is True for v in verdicts)
    return "\n".join(["", f"Bars: {met} of {len(verdicts)} met", *_aligned(rows)])


def head_lines(machine: Mapping[str, Any], versions: Mapping[str, str], seed: int) -> str:
    """The machine and the versions as text."""
    lines = [f"{key}: {value}" for key, value in machine.items()]
    lines.append("versions: " + ", ".join(f"{k} {v}" for k, v in versions.items()))
    lines.append(f"seed: {seed}")
    return "\n".join(lines)


def _markdown_table(rows: Sequence[Sequence[str]]) -> list[str]:
    head, *body = rows
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(row) + " |" for row in body]


def markdown(
    cases: Sequence[Case],
    results: Mapping[str, CaseResult],
    verdicts: Sequence[Verdict],
    head: str,
) -> str:
    """Everything, to stand between the markers of docs/performance.md."""
    lines = ["```text", head, "```", "", "### Bars", ""]
    judged = [[v.bar.text, v.figures, _word(v), f"`{v.bar.case}`"] for v in verdicts]
    lines += _markdown_table([["bar", "measured (asked)", "", "case"], *judged])
    used = set()
    for case in cases:
        result = results[case.name]
        used |= {parse(name)[0] for name, system in result.systems.items() if system.rounds}
        lines += ["", f"### {case.title}", ""]
        lines.append(f"Case `{case.name}`; median (lowest..highest), ratio to `{case.baseline}`.")
        lines += ["", *_markdown_table(_rows(case, result))]
        skips = _skips(result)
        lines += ["", "No figure: " + "; ".join(skips) + "."] if skips else []
    notes = [f"- `{name}`: {SYSTEMS[name].note}" for name in sorted(used) if SYSTEMS[name].note]
    return "\n".join([*lines, "", "Systems:", "", *notes, ""])


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write the results file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(document, indent=1) + "\n")
    part.replace(path)
