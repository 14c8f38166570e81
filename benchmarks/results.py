"""Write docs/results.md: every evaluation set, every method, with MiniLM as it is and as it was trained for context.

python benchmarks/results.py ../shared/data        (make results)
python benchmarks/results.py ../shared/data --only late,model=minilm-insent

Runs `ctxindex eval` as a user would, so vectors are kept between runs and an interrupted one goes on. What other
scripts measured (`seeds`, `view`, `ablations`, `gate`, `cde_rows`, `cde_effect`, `train`, `late_interaction_blend`) is
read from `benchmarks/measured`, where it is there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import corpus_context, paper, shipped
from benchmarks.rows import CUT, OWN, SIGNIFICANT, UNTITLED, Row, read_rows, renewed, rows_of, write_rows
from benchmarks.tables import ndcg_table, points, with_interval

PAGE = Path(__file__).parents[1] / "docs" / "results.md"
MEASURED = Path(__file__).parent / "measured"
"""What other scripts printed with --json."""

VECTORS = Path(__file__).parents[1] / "build" / "results"
"""Vectors of this checkout and no other: `make clean` removes them."""

SOME_FAILED = 3
SETS = (
    "contracts",
    "factbook-eval",
    "medquad-eval-masked",
    "covidqa-eval",
    "evinf-dev",
    "qmsum-dev",
    "squad-eval",
)
BASELINE = "independent"
CONFIGURATIONS = {
    "independent": "independent",
    "bm25": "BM25",
    "bm25+title": "BM25 + title",
    "independent+title": "independent + title",
    "late": "late, window",
    "late,anchor=64": "late, anchor",
    "late,anchor=64,anchor-title": "late, anchor with title",
    "late,anchor=64,anchor-title,blend=0.5": "late, anchor with title, blend 0.5",
}
TRAINED = {
    "late,model=minilm-insent": "**minilm-insent**",
    "independent+title,model=minilm-insent": "minilm-insent, independent + title",
}
"""What the shipped model finds, read as it was trained and each chunk alone."""

SHIPPED = "late,model=minilm-insent"
WITHOUT_TITLES = (SHIPPED,)
"""What is asked again of texts without titles; methods that read no title find the same without."""

ORDER = ("bm25", "bm25+title", "independent", "independent+title", *list(CONFIGURATIONS)[4:], *TRAINED)
CHUNKS = ("--chunker", "recursive", "--chunk-size", "500", "--chunk-unit", "chars")
GROUPS = {
    CUT: (SETS, CHUNKS, tuple(CONFIGURATIONS | TRAINED)),
    OWN: (("squad-eval",), ("--chunks", "given"), tuple(CONFIGURATIONS | TRAINED)),
    UNTITLED: (SETS, (*CHUNKS, "--no-titles"), WITHOUT_TITLES),
}
"""Sets, further flags and configurations of each group of rows."""
ROWS = "results.json"
WIDTH = 118

_SPEED = (
    "Tokens of chunks (without titles, anchors, special tokens and padding) that a second of training goes over, "
    "forward, backward and optimiser, in {dtype}: `late` in windows, `late-blend` with the isolated view of each chunk "
    "as well, so that every token is read twice, `alone` each chunk by itself; `flattened` is Sentence-Transformers' "
    "trainer with its multiple negatives ranking loss over the same chunks, with as many queries, without dropout as "
    "ours; `dropout` is the same with the dropout that MiniLM comes with. Medians of {repeats} runs that took turns, "
    "on {processors} processors (`python benchmarks/train.py`)."
)

EXPERIMENTS = {
    "ablations": "## What each part of the training is worth (nDCG@10)",
    "gate": "## Two views of a chunk, or one pass (nDCG@10)",
}
"""Files of `MEASURED` that hold a table of nDCG@10, and what stands above it."""
_ONE_PASS = (
    "Plainly: none of these single passes has what the second view adds where questions repeat the words of their "
    "answers (covidqa-eval, squad-eval). The vector in context, distilled from both, is no better there for it; the "
    "mask gains on squad-eval alone; the gate gains 0.2 to 1.2 points on each set, with one seed. What gives as much "
    "back in one pass is merging with the base (above), and half of the tuned weights cost four points on contracts. "
    "`minilm-insent` has two views, and is merged."
)
BLENDED = "through the blend"
"""What the names of trainings with two views begin with."""
_BLEND = (
    "Exact MaxSim over token states of models that were **not trained for late interaction**, on the first documents "
    "of each set: contextual (in the window), isolated (the chunk alone behind its title), both under one maximum "
    "(union), (1 - b) and b of both scores (weighted b), and one vector normalize((1 - b) u + b v) a token (token-wise "
    "b), which is what `--blend` does with late interaction (`python benchmarks/late_interaction_blend.py`). The "
    "weights of minilm-insent were those before the ones that ship. On MiniLM the union is ahead of token-wise b 0.3 "
    "and level with 0.7; on minilm-insent it is ahead of both. It is not what ships all the same: it takes twice the "
    "vectors in the store and in every search."
)

Table = Mapping[tuple[str, str], Row]
"""Rows by data set and configuration."""


def command(sets: Sequence[str], rest: Sequence[str], names: Sequence[str] = ()) -> list[str]:
    """What is run, with data sets as they are named in the data folder."""
    first, *others = names or tuple(CONFIGURATIONS | TRAINED)
    compared = [part for name in others for part in ("--compare", name)]
    return ["ctxindex", "eval", *sets, "--model", "minilm", "--method", first, *compared, *rest, "--json"]


def run(data: Path, sets: Sequence[str], rest: Sequence[str], names: Sequence[str] = ()) -> dict[str, Any]:
    """What the command prints."""
    _, *arguments = command([str(data.resolve() / name) for name in sets], rest, names)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CTXINDEX_")}
    environment["HF_HUB_OFFLINE"] = "1"
    VECTORS.mkdir(parents=True, exist_ok=True)
    printed = subprocess.run(
        [sys.executable, "-m", "ctxindex.cli", *arguments, "--cache", str(VECTORS)],
        stdout=subprocess.PIPE,
        cwd=VECTORS,  # where no ctxindex.toml says anything
        env=environment,
        check=False,
    )
    if printed.returncode not in (0, SOME_FAILED):
        raise SystemExit(printed.returncode)
    found: dict[str, Any] = json.loads(printed.stdout)
    return found


def render(groups: Mapping[str, Sequence[Row]]) -> str:
    """The page."""
    runs, paragraphs, bare = ({(row.dataset, row.name): row for row in groups.get(group, ())} for group in GROUPS)
    parts = [
        "# Results",
        "<!-- Written by benchmarks/results.py (make results); do not edit. -->",
        *_preface([row for group in GROUPS for row in groups.get(group, ())]),
        "## nDCG@10",
        _table(runs, SETS, _with_interval),
        "Points of 100, in brackets the 95 % interval of a bootstrap over queries. An asterisk marks a "
        f"difference to `{BASELINE}` with p below {SIGNIFICANT} (paired randomisation test, 2,000 resamples, "
        "seed 0, against the baseline of the same run, corrected by Holm's method for the rows of that run).",
        "## Without titles (nDCG@10)",
        _table(bare, SETS, lambda one: points(one.ndcg), WITHOUT_TITLES),
        "The same sets as if no document had a title (`--no-titles`); what `independent` and BM25 find is above.",
        *_training_sections(runs),
        *paper.section(runs, _measured("ablations")),
        *corpus_context.section(_measured("cde"), _measured("cde_effect")),
        *_blend_section(),
        "## Recall@10",
        _table(runs, SETS, lambda one: points(one.recall)),
        "## The right document first (document hit@1)",
        _table(runs, SETS, lambda one: points(one.hit)),
        "## squad-eval by its own paragraphs (nDCG@10)",
        _table(paragraphs, ("squad-eval",), lambda one: points(one.ndcg)),
        "## Seconds to index",
        _table(runs, SETS, lambda one: "-" if one.seconds is None else f"{one.seconds:,.1f}"),
        f"Wall time of the machine that measured the row, on {_processors(runs)}; encoding included, the loading of "
        "the model not. Vectors kept from an earlier run count with the time they took then; no time is told where "
        "another number of processors had made them, or other work ran beside. Rows in float32 are of a "
        "machine that has no instructions for bfloat16: they are to be compared with each other.",
        "## The sets",
        _sizes(runs),
    ]
    return "\n\n".join(_wrapped(part) for part in parts) + "\n"


def _wrapped(part: str) -> str:
    """Prose in lines that can be read; tables, headings and code as they are."""
    return part if part.startswith(("|", "#", "<", "`")) else textwrap.fill(part, WIDTH, break_on_hyphens=False)


def _preface(rows: Sequence[Row]) -> tuple[str, ...]:
    commands = "\n".join(
        textwrap.fill(" ".join(command(sets, chunks)), WIDTH, subsequent_indent="    ", break_on_hyphens=False)
        for sets, chunks in ((SETS, CHUNKS), (("squad-eval",), ("--chunks", "given")))
    )
    return (
        "What methods find with MiniLM (all-MiniLM-L6-v2, 22 M parameters, 512 positions), as it is and trained for "
        "context. All chunks of a set are ranked for every query, exactly; a chunk is relevant when it overlaps a gold "
        "span. "
        "Chunks have at most 500 characters (recursive splitter, no overlap). `late` is late chunking with the model "
        "as it is, **untrained for context**: window reads a document in windows of 512 tokens; anchor begins each "
        "later window with the first 64 tokens of the document; with title, every window also begins with the title; "
        "blend 0.5 mixes half of the vector of the chunk alone in. **minilm-insent** is the model that comes with "
        "ctxindex: MiniLM trained with InSeNT on other documents (contracts, health pages, clinical trials, meetings; "
        "`recipes/train_minilm_insent.py`), read as its own settings say; below it, the same model with titles put "
        "before chunks that are embedded alone. Contextual retrieval with a language model "
        "(`contextual`) needs an endpoint and is not in the table. RAPTOR's tree of summaries is left out: it ranks "
        "texts that a language model wrote, which have no span in any document, so neither these metrics nor the rest "
        "of the tool would mean the same for it.",
        f"```\n{commands}\n```",
        f"Nothing here is drawn at random but the resamples of intervals and tests (seed 0). {_circumstances(rows)}",
    )


def _circumstances(rows: Sequence[Row]) -> str:
    """The precision and the versions that rows were measured with."""
    named = _named(rows, lambda row: f"{row.dtype} ({row.versions})")
    return f"Measured in {'; in '.join(named)}."


def _processors(runs: Table) -> str:
    return ", on ".join(_named(runs.values(), lambda row: f"{row.processors} processor{'s' * (row.processors > 1)}"))


def _named(rows: Iterable[Row], told: Callable[[Row], str]) -> list[str]:
    """What is told of rows, each thing once, with the configurations that it is told of where it is not all of them."""
    words = {**CONFIGURATIONS, **TRAINED}
    found: dict[str, dict[str, None]] = {}
    for row in rows:
        found.setdefault(told(row), {})[words[row.name].strip("*")] = None
    if len(found) == 1:
        return list(found)
    return [f"{one}: {', '.join(names)}" for one, names in found.items()]


def _table(runs: Table, sets: Sequence[str], cell: Callable[[Row], str], order: Sequence[str] = ORDER) -> str:
    lines = [f"| | {' | '.join(sets)} |", f"| --- |{' --- |' * len(sets)}"]
    for name in order:
        rows = [runs[one, name] for one in sets]
        lines.append(f"| {_called(rows, runs)} | {' | '.join(map(cell, rows))} |")
    return "\n".join(lines)


def _called(rows: Sequence[Row], runs: Table) -> str:
    """What a row is called; one of a trained model tells where it was measured of other weights than ship."""
    name = rows[0].name
    if name in TRAINED and any(row.digest != runs[row.dataset, SHIPPED].digest for row in rows):
        return f"{TRAINED[name]} (earlier weights)"
    return {**CONFIGURATIONS, **TRAINED}[name]


def _with_interval(one: Row) -> str:
    mark = "*" if one.differs else ""
    return f"{points(one.ndcg)}{mark} [{points(one.low)}, {points(one.high)}]"


def _training_sections(runs: Table) -> list[str]:
    """What training costs, and what each part of it is worth, as far as it was measured."""
    found = shipped.section(_measured("seeds"), _measured("view"), _measured("again"))
    if (measured := _measured("train")) is not None:
        peer = measured["median"]["flattened"]["tokens_per_second"]
        lines = [
            f"| {name} | {one['tokens_per_second']:,.0f} | {one['tokens_per_second'] / peer:.2f} |"
            for name, one in measured["median"].items()
        ]
        head = "| | content tokens a second | of flattened |\n| --- | --- | --- |\n"
        repeats = len(measured["runs"]["flattened"])
        said = _SPEED.format(dtype=measured["dtype"], repeats=repeats, processors=measured["processors"])
        found += ["## Training speed", head + "\n".join(lines), said]
    for name, heading in EXPERIMENTS.items():
        if (measured := _measured(name)) is not None:
            rows = [*_beside(name, measured["sets"], runs), *measured["runs"]]
            if name == "ablations":
                rows = [one for one in rows if not one["name"].startswith(BLENDED)]
            found += [heading, ndcg_table(measured["sets"], rows), measured["about"]]
            found += [_ONE_PASS] if name == "gate" else []
    return found


def _beside(name: str, sets: Sequence[str], runs: Table) -> list[Mapping[str, Any]]:
    """What an experiment is to be compared with: no training; or, in one pass, that without, and two passes."""
    if name != "gate":
        return [*_untrained(sets, runs)]
    trained = _measured("ablations") or {"runs": []}
    return [one for one in trained["runs"] if one["name"] == paper.PLAIN or one["name"].startswith(BLENDED)]


def _untrained(sets: Sequence[str], runs: Table) -> list[dict[str, Any]]:
    """What the model finds without any training, alone and in context: what trained rows are to be compared with."""
    return [
        {"name": f"untrained: {CONFIGURATIONS[name]}", "ndcg@10": {one: runs[one, name].ndcg for one in sets}}
        for name in (BASELINE, "late,anchor=64,anchor-title")
        if all((one, name) in runs for one in sets)
    ]


def _measured(name: str) -> Any:
    """What another script measured; None where it was not run."""
    file = MEASURED / f"{name}.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def _blend_section() -> list[str]:
    """What ways to use both views of a token find, as far as it was measured."""
    measured = _measured("late_interaction_blend")
    if measured is None:
        return []
    sets = list(next(iter(measured.values()))["sets"])
    head = f"| | | {' | '.join(sets)} |\n| --- | --- |{' --- |' * len(sets)}\n"
    rows = [
        f"| {form} | {model} | {' | '.join(points(of[name]) for name in sets)} |"
        for model, one in measured.items()
        for form, of in one["ndcg@10"].items()
    ]
    apart = [
        f"{model}, {pair}: {with_interval(of)}"
        for model, one in measured.items()
        for pair, of in one["differences"].items()
    ]
    return [
        "## Ways to blend token vectors (nDCG@10)",
        head + "\n".join(rows),
        _BLEND,
        f"Differences over the queries of all sets, with 95 % intervals: {'; '.join(apart)}.",
    ]


def _sizes(runs: Table) -> str:
    lines = ["| | documents | chunks | queries |", "| --- | --- | --- | --- |"]
    for name in SETS:
        one = runs[name, BASELINE]
        lines.append(f"| {name} | {one.documents:,} | {one.chunks:,} | {one.queries:,} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("data", type=Path, help="the folder that holds the evaluation sets")
    parser.add_argument("--only", nargs="*", metavar="NAME", help="configurations to measure; all others are kept")
    parser.add_argument("--page", type=Path, default=PAGE, help="the file to write")
    given = parser.parse_args()
    asked = tuple(CONFIGURATIONS | TRAINED) if given.only is None else given.only
    if unknown := [name for name in asked if name not in CONFIGURATIONS | TRAINED]:
        parser.error(f"no configuration is called {', '.join(unknown)}")
    groups = measure(given.data, asked, read_rows(MEASURED / ROWS))
    given.page.write_text(render(groups), encoding="utf-8")
    print(f"written: {given.page}")


def measure(data: Path, asked: Sequence[str], groups: dict[str, list[Row]]) -> dict[str, list[Row]]:
    """The rows of each group, those asked for measured now, beside the baseline where the group has it."""
    for group, (sets, rest, names) in GROUPS.items():
        chosen = [name for name in names if name in asked]
        if chosen:
            beside = [name for name in names if name == BASELINE or name in asked]
            found = rows_of(run(data, sets, rest, beside))
            groups[group] = renewed(groups.get(group, ()), [row for row in found if row.name in chosen])
            write_rows(MEASURED / ROWS, groups)
    return groups


if __name__ == "__main__":
    main()
