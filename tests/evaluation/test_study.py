"""Studies: every configuration on the same chunks, curves of one thing varied, and a whole run done by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from ctxindex.encoding.checkpoint import open_checkpoint
from ctxindex.errors import ConfigError
from ctxindex.evaluation import Configuration, Dataset, Run, parse_configurations
from ctxindex.evaluation.evaluator import Evaluator, chunker_of
from ctxindex.evaluation.results import SweepPoint
from ctxindex.evaluation.study import Study
from ctxindex.evaluation.sweeps import Sweep, parse_sweep
from ctxindex.spec import ChunkerSpec
from ctxindex.types import Chunker
from tests.encoding.tiny import save_sentence_transformer
from tests.evaluation.builders import PEOPLE, QUESTIONS, dataset_of
from tests.evaluation.test_bm25 import by_formula

if TYPE_CHECKING:
    from ctxindex.types import FloatArray

CHUNKER = ChunkerSpec("recursive", 60, "chars", 0)


def people(name: str = "people", **more: Any) -> Dataset:
    return dataset_of(PEOPLE, QUESTIONS, name=name, **more)


def runs_of(study: Study, **evaluator: Any) -> list[Run]:
    return list(study.run(Evaluator(device="cpu", **evaluator), lambda spec: chunker_of(spec, None)))


def texts_of(run: Run) -> list[str]:
    return [chunk.text for one in run.corpus.documents for chunk in one.chunks]


def own_chunks() -> list[str]:
    return [text for parts in PEOPLE.values() for text in parts]


def by_hand(folder: Path, texts: Sequence[str]) -> FloatArray:
    """Late chunking of a short document in float64, from transformers and the definition alone."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, attn_implementation="eager").double().eval()
    ids, places = [tokenizer.cls_token_id], []
    for text in texts:
        content = tokenizer(text, add_special_tokens=False)["input_ids"]
        places.append(slice(len(ids), len(ids) + len(content)))
        ids += [*content, tokenizer.sep_token_id]
    with torch.no_grad():
        states = model(torch.tensor([ids])).last_hidden_state[0]
    means = [states[place].mean(dim=0) for place in places]
    return np.stack([(mean / mean.norm()).numpy() for mean in means])


def asked_by_hand(folder: Path, query: str) -> FloatArray:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, attn_implementation="eager").double().eval()
    with torch.no_grad():
        mean = model(**tokenizer(query, return_tensors="pt")).last_hidden_state[0].mean(dim=0)
    vector: FloatArray = (mean / mean.norm()).numpy()
    return vector


def test_a_run_of_late_is_what_a_script_makes_of_it() -> None:
    (run,) = runs_of(Study([people(given=True)], [Configuration("late", settings={"model": "minilm"})], CHUNKER))
    folder = open_checkpoint("minilm").folder
    names = [f"{doc_id}_{piece}" for doc_id, parts in PEOPLE.items() for piece in range(len(parts))]
    vectors = np.concatenate([by_hand(folder, parts) for parts in PEOPLE.values()])
    for number, (query, gold) in enumerate(QUESTIONS):
        scores = vectors @ asked_by_hand(folder, query)
        order = sorted(range(len(names)), key=lambda place: -scores[place])
        relevant = {f"{doc_id}_{piece}" for doc_id, piece in gold}
        ranks = [rank for rank, place in enumerate(order, 1) if names[place] in relevant]
        ideal = sum(1 / math.log2(rank + 1) for rank in range(1, len(relevant) + 1))
        documents = list(dict.fromkeys(names[place].rpartition("_")[0] for place in order))
        assert run.ranking.chunks[number, :9].tolist() == order
        np.testing.assert_allclose(run.ranking.scores[number, :9], scores[order], atol=1e-5)
        assert run.ranking.gold_rank[number] == ranks[0]
        values = {name: values[number] for name, values in run.values.items()}
        assert values == pytest.approx(
            {
                "ndcg@10": sum(1 / math.log2(rank + 1) for rank in ranks) / ideal,
                **{f"recall@{k}": sum(rank <= k for rank in ranks) / len(relevant) for k in (1, 5, 10)},
                "mrr@10": 1 / ranks[0],
                **{f"document_hit@{k}": float(gold[0][0] in documents[:k]) for k in (1, 5, 10)},
            }
        )
    assert 0.5 < run.metrics["ndcg@10"].mean < 1, "neither all nor nothing was found"


def test_configurations_one_after_the_other_on_the_same_chunks() -> None:
    study = Study([people("a"), people("b", given=True)], parse_configurations(["bm25,independent,late"]), CHUNKER)
    runs = runs_of(study)
    assert [(run.name, run.corpus.name) for run in runs] == [
        (name, corpus) for name in ("bm25", "independent", "late") for corpus in ("a", "b")
    ]
    assert len({id(run.corpus) for run in runs}) == 2
    assert all(run.corpus is runs[number % 2].corpus for number, run in enumerate(runs))
    assert all(run.point is None and "unit" not in run.notes for run in runs)


@pytest.mark.parametrize(
    ("chunks", "given", "own"),
    [(None, True, True), (None, False, False), ("given", False, True), ("given", True, True), ("cut", True, False)],
)
def test_own_chunks_are_ranked_where_the_set_or_the_caller_means_it(chunks: Any, given: bool, own: bool) -> None:
    loaded: list[ChunkerSpec] = []

    def load(spec: ChunkerSpec) -> Chunker:
        loaded.append(spec)
        return chunker_of(spec, None)

    study = Study([people("a", given=given), people("b", given=given)], [Configuration("bm25")], CHUNKER, chunks)
    for run in study.run(Evaluator(), load):
        assert (texts_of(run) == own_chunks()) == own
    assert loaded == ([] if own else [CHUNKER]), "a chunker is loaded where there is something to cut, and once"


def test_two_sets_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="two datasets are called people"):
        runs_of(Study([people(), people("other"), people()], [Configuration("bm25")], CHUNKER))


def test_a_sweep_of_chunk_sizes_cuts_again_at_each() -> None:
    sweep = parse_sweep("chunk-size=120,40,80")
    study = Study([people("a", given=True), people("b")], parse_configurations(["bm25,late"]), CHUNKER, sweep=sweep)
    runs = runs_of(study)
    expected = [(size, corpus) for size in (40, 80, 120) for corpus in ("a", "b")]
    assert [(run.name, run.point, run.corpus.name) for run in runs] == [
        (name, SweepPoint("chunk-size", size), corpus) for name in ("bm25", "late") for size, corpus in expected
    ]
    for run in runs:
        assert run.point is not None
        assert max(map(len, texts_of(run))) <= run.point.value
        assert run.notes["unit"] == "chars"
    counts = [run.corpus.n_chunks for run in runs[:6:2]]
    assert counts == sorted(counts, reverse=True)
    assert len(set(counts)) == 3
    assert [run.cached for run in runs[7::2]] == counts, "the second set holds what the first one does"


@pytest.mark.parametrize(("chunks", "text"), [("given", "bm25"), (None, "bm25,stored")])
def test_what_is_not_cut_has_no_chunk_sizes(chunks: Any, text: str) -> None:
    study = Study([people()], parse_configurations([text]), CHUNKER, chunks, parse_sweep("chunk-size=64"))
    with pytest.raises(ConfigError, match="--sweep chunk-size cuts documents anew"):
        runs_of(study)


def test_a_sweep_of_corpus_sizes_indexes_each_sub_corpus_by_itself() -> None:
    configurations = parse_configurations(["bm25,late"])
    study = Study([people(given=True)], configurations, CHUNKER, sweep=Sweep("corpus-size", (2, 4)), seeds=2)
    runs = runs_of(study)
    points = [SweepPoint("corpus-size", size, seed) for seed in (0, 1) for size in (2, 4)]
    assert [(run.name, run.point) for run in runs] == [(name, point) for name in ("bm25", "late") for point in points]
    for run in runs[:4]:
        for number, query in enumerate(run.corpus.queries):
            expected = sorted(by_formula(texts_of(run), query.text), reverse=True)
            found = run.ranking.scores[number, : len(expected)]
            np.testing.assert_allclose(found, expected, rtol=1e-5)  # the fewer the chunks, the smaller the idf
    assert [run.corpus for run in runs[:4]] == [run.corpus for run in runs[4:]]
    assert [len(run.corpus.documents) for run in runs[:4]] == [2, 4, 2, 4]
    assert runs[5].cached == runs[4].corpus.n_chunks, "what a smaller sub-corpus held is not encoded again"
    assert all("unit" not in run.notes for run in runs)


def test_a_sweep_of_lambda_is_one_curve_over_the_models(tmp_path: Path) -> None:
    (tmp_path / "family").mkdir()
    for name, kind in (("lambda-0.5", "distilbert"), ("lambda-0", "bert")):
        made = save_sentence_transformer(tmp_path / kind, kind)
        made.rename(tmp_path / "family" / name)
    sweep = parse_sweep(f"lambda={tmp_path / 'family'}")
    configurations = parse_configurations(["late", "independent"])
    datasets = [people("a", given=True), people("b", given=True)]
    runs = runs_of(Study(datasets, configurations, CHUNKER, sweep=sweep))
    assert [(run.name, run.point, run.corpus.name) for run in runs] == [
        (name, SweepPoint("lambda", value), corpus)
        for name in ("late", "independent")
        for value in (0, 0.5)
        for corpus in ("a", "b")
    ]
    for run in runs:
        assert run.point is not None
        folder = {0: "lambda-0", 0.5: "lambda-0.5"}[run.point.value]
        model = str(tmp_path / "family" / folder)
        assert (run.model, run.notes["model"], run.notes["method"]) == ("", model, run.name)
        (alone,) = Evaluator(device="cpu").run(Configuration(run.name, None, {"model": model}), [run.corpus])
        np.testing.assert_allclose(run.ranking.scores, alone.ranking.scores, atol=1e-6)
    assert not np.allclose(runs[0].ranking.scores[:, :9], runs[2].ranking.scores[:, :9], atol=1e-3)


def test_what_has_no_model_has_no_lambda(tmp_path: Path) -> None:
    (tmp_path / "lambda-0").mkdir()
    study = Study([people()], parse_configurations(["bm25+title"]), CHUNKER, sweep=parse_sweep(f"lambda={tmp_path}"))
    with pytest.raises(ConfigError, match=r"--sweep lambda varies the model, and bm25\+title has none"):
        runs_of(study)
