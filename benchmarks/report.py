"""What `encode.py` says: ratios with the targets beside them, and a table of the contenders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

BFLOAT16 = "bfloat16"


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure, and what it should be: at least `target`, or at most. None where nothing was promised."""

    name: str
    value: float
    target: float | None = None
    at_most: bool = False

    @property
    def met(self) -> bool:
        """Whether the target is reached; true without one."""
        if self.target is None:
            return True
        return self.value <= self.target if self.at_most else self.value >= self.target

    def line(self, width: int) -> str:
        """The goal as a line of text, its name padded to `width`."""
        start = f"{self.name:{width}}  {self.value:7.2f}"
        if self.target is None:
            return start
        sign = "<=" if self.at_most else ">="
        return f"{start}   target {sign} {self.target:g}: {'met' if self.met else 'MISSED'}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """The time of `slower` over the time of `faster`. The target holds where we run in `dtype`, or always if None."""

    name: str
    slower: str
    faster: str
    target: float | None = None
    dtype: str | None = None
    at_most: bool = False

    def goal(self, seconds: Mapping[str, float], dtype: str) -> Goal | None:
        """The ratio, where both were measured."""
        if self.slower not in seconds or self.faster not in seconds:
            return None
        target = self.target if self.dtype in (None, dtype) else None
        return Goal(self.name, seconds[self.slower] / seconds[self.faster], target, self.at_most)


COMPARISONS = (
    Comparison("late vs sentence-transformers", "sentence-transformers", "late", 3.3, BFLOAT16),
    Comparison("late vs sentence-transformers-best", "sentence-transformers-best", "late"),
    Comparison("late vs sentence-transformers-same-dtype", "sentence-transformers-same-dtype", "late"),
    Comparison("late vs sentence-transformers-onnx", "sentence-transformers-onnx", "late"),
    Comparison("late vs llama-index", "llama-index", "late", 2.8, BFLOAT16),
    Comparison("late vs llama-index-same-dtype", "llama-index-same-dtype", "late"),
    Comparison("late vs chonkie", "chonkie", "late", 2.4, BFLOAT16),
    Comparison("late vs chonkie-same-dtype", "chonkie-same-dtype", "late"),
    Comparison("late-float32 vs sentence-transformers", "sentence-transformers", "late-float32", 1.25),
    Comparison("time of late-blend over late", "late-blend", "late", 1.9, at_most=True),
    Comparison("time of late-anchor over late", "late-anchor", "late"),
)


def compare(seconds: Mapping[str, float], dtype: str) -> list[Goal]:
    """All ratios that can be taken of these seconds."""
    goals = (comparison.goal(seconds, dtype) for comparison in COMPARISONS)
    return [goal for goal in goals if goal is not None]


def summarise(runs: Sequence[Mapping[str, Any]], documents: int, tokens: int) -> dict[str, Any]:
    """One contender's runs as figures: the median time, what follows from it, and the largest memory."""
    seconds = median(run["seconds"] for run in runs)
    last = {key: value for key, value in runs[-1].items() if key not in ("seconds", "peak_mib", "tokens")}
    figures = {
        "seconds": round(seconds, 4),
        "runs": [round(run["seconds"], 4) for run in runs],
        "documents_per_second": round(documents / seconds, 3),
        "tokens_per_second": round(tokens / seconds, 1),
        "peak_mib": round(max(run["peak_mib"] for run in runs)),
        **last,
    }
    if "matrix_fraction" in last:
        for name in ("matrix_fraction", "forward_gflops"):
            figures[name] = round(median(run[name] for run in runs), 4)
    return figures


def linearity(short: Sequence[Mapping[str, Any]], long: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Tokens per second of the same text in short documents and in a single long one; medians."""
    speeds = [median(run["tokens"] / run["seconds"] for run in runs) for runs in (short, long)]
    return {
        "short_tokens_per_second": round(speeds[0], 1),
        "long_tokens_per_second": round(speeds[1], 1),
        "ratio": round(speeds[1] / speeds[0], 4),
    }


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of aligned columns, the first row being the heading; all but the first two columns to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    signs = ["<", "<", *(">" for _ in widths[2:])]
    return [
        "  ".join(f"{cell:{sign}{width}}" for cell, sign, width in zip(row, signs, widths, strict=True)).rstrip()
        for row in rows
    ]


def contender_rows(contenders: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """The table of the contenders that were measured, `late` being the measure of the last column."""
    rows = [["contender", "dtype", "seconds", "documents/s", "tokens/s", "chunks", "peak MiB", "of late's time"]]
    late = contenders.get("late", {}).get("seconds")
    for name, figures in contenders.items():
        if "seconds" not in figures:
            continue
        seconds = figures["seconds"]
        rows.append(
            [
                *(name, figures["dtype"], f"{seconds:.2f}", f"{figures['documents_per_second']:.2f}"),
                *(f"{figures['tokens_per_second']:,.0f}", f"{figures['chunks']:,}", f"{figures['peak_mib']:,}"),
                f"{seconds / late:.2f}" if late else "",
            ]
        )
    return rows


def describe(result: Mapping[str, Any], goals: Sequence[Goal]) -> list[str]:
    """The whole result as lines for a person."""
    contenders = result["contenders"]
    lines = [result["machine"], f"{result['documents']} documents, {result['chunks']:,} chunks, "]
    lines[-1] += f"{result['tokens']:,} tokens; median of {result['repeat']}, each run a process of its own"
    lines += ["", *table(contender_rows(contenders)), ""]
    lines += circumstances(contenders)
    for name, figures in contenders.items():
        if "stages" in figures:
            lines.append(f"{name}: {forward_line(figures)}")
    width = max((len(goal.name) for goal in goals), default=0)
    return [*lines, "", *(goal.line(width) for goal in goals)]


def circumstances(contenders: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """With which versions and settings the contenders ran, or why not; one line for all that share them."""
    names: dict[str, list[str]] = {}
    for name, figures in contenders.items():
        if "unavailable" in figures:
            facts = [figures["unavailable"]]
        else:
            facts = [f"{package} {version}" for package, version in figures["versions"].items()]
            facts += [f"batches of {figures['batch_size']}"] if "batch_size" in figures else []
            facts += [figures["note"]] if "note" in figures else []
        names.setdefault(", ".join(facts), []).append(name)
    return [f"{', '.join(named)}: {facts}" for facts, named in names.items()]


def forward_line(figures: Mapping[str, Any]) -> str:
    """The forward pass beside the matrix products, and the seconds of every stage of the last run."""
    rates = f"{figures['forward_gflops']:,.0f} GFLOP/s of {figures['matmul_gflops']['all']:,.0f} in matrix products"
    stages = ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in figures["stages"].items())
    return f"forward pass {rates} ({figures['matrix_fraction']:.0%}); {stages}"
