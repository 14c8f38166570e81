"""Rows of docs/results.md as they were measured, so that one can be measured again without the others.

A row is what one configuration found on one set, with the precision and the versions that it was measured with. It is
kept in `benchmarks/measured/results.json`, in three groups: by chunks of 500 characters, by a set's own chunks, and as
if no document had a title.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

SIGNIFICANT = 0.05
PACKAGES = ("ctxindex", "torch", "transformers", "bm25s")
CUT, OWN, UNTITLED = "chunks of 500 characters", "chunks of the sets", "without titles"
"""The groups."""

WITHOUT = " without titles"
"""What `eval --no-titles` puts behind a set's name."""


@dataclass(frozen=True)
class Row:
    """What a configuration found.

    Values are 0 to 1. `differs` is from the baseline of the same run, with p below `SIGNIFICANT` when corrected for the
    rows of that run. `digest` is that of the model's weights, empty for none. `seconds` are None where vectors had been
    made by another number of processors.
    """

    dataset: str
    name: str
    documents: int
    chunks: int
    queries: int
    ndcg: float
    low: float
    high: float
    recall: float
    hit: float
    seconds: float | None
    differs: bool
    digest: str
    processors: int
    dtype: str
    versions: str


def rows_of(found: Mapping[str, Any]) -> list[Row]:
    """The rows of what `ctxindex eval --json` printed here and now."""
    versions = ", ".join([*(f"{name} {version(name)}" for name in PACKAGES), f"Python {platform.python_version()}"])
    compared = {
        (one["dataset"], one["name"]): one["p_holm"] < SIGNIFICANT
        for one in found.get("comparisons", ())
        if one["metric"] == "ndcg@10"
    }
    return [
        Row(
            dataset=one["dataset"].removesuffix(WITHOUT),
            name=one["name"],
            documents=one["documents"],
            chunks=one["chunks"],
            queries=one["queries"],
            ndcg=one["metrics"]["ndcg@10"],
            low=one["intervals"]["ndcg@10"][0],
            high=one["intervals"]["ndcg@10"][1],
            recall=one["metrics"]["recall@10"],
            hit=one["metrics"]["document_hit@1"],
            seconds=one["seconds"]["index"],
            differs=compared.get((one["dataset"], one["name"]), False),
            digest=one["notes"].get("encoder", {}).get("digest", ""),
            processors=len(os.sched_getaffinity(0)),
            dtype=one["notes"]["dtype"],
            versions=versions,
        )
        for one in found["runs"]
    ]


def renewed(old: Iterable[Row], new: Iterable[Row]) -> list[Row]:
    """The old rows with the new ones in their places, or behind them."""
    found = {(row.dataset, row.name): row for row in old}
    return list((found | {(row.dataset, row.name): row for row in new}).values())


def read_rows(file: Path) -> dict[str, list[Row]]:
    """The rows of each group; none where there is no file."""
    if not file.exists():
        return {}
    groups: dict[str, list[dict[str, Any]]] = json.loads(file.read_text(encoding="utf-8"))
    return {group: [Row(**one) for one in rows] for group, rows in groups.items()}


def write_rows(file: Path, groups: Mapping[str, Sequence[Row]]) -> None:
    """Keep the rows of each group."""
    file.parent.mkdir(exist_ok=True)
    kept = {group: [asdict(row) for row in rows] for group, rows in groups.items()}
    file.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
