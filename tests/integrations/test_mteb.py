"""Our encoders through mteb: a task over the bundled contracts, and small corpora that go wrong in every way."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mteb
import numpy as np
import pytest
from datasets import Dataset
from mteb.abstasks import AbsTaskRetrieval
from mteb.models import SearchProtocol

from ctxindex.chunking import load_chunker
from ctxindex.encoding import load_encoder
from ctxindex.encoding.checkpoint import open_checkpoint
from ctxindex.encoding.encoder import Encoder
from ctxindex.encoding.local import LocalEncoder
from ctxindex.encoding.maxsim import max_sim
from ctxindex.errors import MissingDependencyError, UsageError
from ctxindex.integrations.mteb import MtebSearch
from ctxindex.spec import ChunkerSpec
from ctxindex.types import ChunkedDocument, Document, EncodedDocument, FailedDocument
from tests.encoding.stand_in import chunked
from tests.encoding.test_colbert import PYLATE, pylate
from tests.integrations.in_memory import ContractsInMemory, corpus_of, questions

Found = Mapping[str, Mapping[str, float]]

TOLERANCE = 1e-5
NAPOLEON = ["Napoleon was born in Corsica.", "He became emperor in 1804.", "He died in exile on Saint Helena."]
QUESTIONS = {"q0": "Who became emperor?", "q1": "Which law governs the agreement?"}


@pytest.fixture(scope="module")
def contracts_task(samples: Path, minilm_independent: LocalEncoder) -> ContractsInMemory:
    """The first passages of each contract, and some words from inside of every fourth as a query for it."""
    chunker = load_chunker(ChunkerSpec("recursive", 48, "tokens", 0), minilm_independent.tokenizer)
    passages: dict[str, str] = {}
    titles: list[str] = []
    for file in sorted(samples.glob("*.txt")):
        name = file.stem.replace("-", "_")
        document = Document(name, file.read_text(encoding="utf-8")[:2500])
        for chunk in chunker.chunk(document):
            passages[f"{name}_{chunk.ordinal}"] = chunk.text
            titles.append(name.split("_")[0] if chunk.ordinal % 2 else "")
    asked = {f"q{number}": corpus_id for number, corpus_id in enumerate(list(passages)[::4])}
    words = {query_id: passages[corpus_id].split() for query_id, corpus_id in asked.items()}
    queries = {query_id: " ".join(each[len(each) // 2 :][:4]) for query_id, each in words.items()}
    return ContractsInMemory(corpus_of(passages, titles), queries, asked)


def evaluate(model: Any, task: AbsTaskRetrieval, cache: mteb.ResultCache | None = None) -> dict[str, Any]:
    result = mteb.evaluate(model, task, cache=cache, show_progress_bar=False)
    return dict(result.task_results[0].scores["test"][0])


def search(model: MtebSearch, corpus: Dataset, queries: Mapping[str, str], **more: Any) -> dict[str, dict[str, float]]:
    model.index(corpus)
    return model.search(questions(queries), **{"top_k": 100, **more})


def encoded(encoder: Encoder, document: ChunkedDocument) -> EncodedDocument:
    (result,) = encoder.encode_documents([document])
    assert isinstance(result, EncodedDocument), result
    return result


def expected_scores(encoder: Encoder, query: str, document: EncodedDocument) -> list[float]:
    """Cosine or MaxSim of the query with each chunk, from vectors that were asked for without mteb."""
    rows = np.atleast_2d(encoder.encode_queries([query])[0])
    vectors = [np.atleast_2d(each) for each in document.chunk_vectors()]
    return [float(max_sim(rows[None], each[None])[0, 0]) for each in vectors]


def require_same(found: Found, expected: Found) -> None:
    assert {query_id: list(scores) for query_id, scores in found.items()} == {
        query_id: sorted(scores, key=lambda each: (scores[each], each), reverse=True)
        for query_id, scores in expected.items()
    }
    for query_id, scores in expected.items():
        assert found[query_id] == pytest.approx(dict(scores), abs=TOLERANCE)


# Of what mteb itself calls when it is given a SentenceTransformer.
@pytest.mark.filterwarnings("ignore:The fill_missing parameter is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The `get_sentence_embedding_dimension` method has been renamed:FutureWarning")
def test_independent_scores_are_those_of_sentence_transformers(
    contracts_task: ContractsInMemory, minilm_independent: LocalEncoder
) -> None:
    from sentence_transformers import SentenceTransformer

    oracle = SentenceTransformer(str(open_checkpoint("minilm").folder), device="cpu")
    scores = evaluate(MtebSearch(minilm_independent), contracts_task)
    theirs = evaluate(oracle, contracts_task)
    assert 0.1 < scores["ndcg_at_10"] < 0.95, "neither hopeless nor all right, or this would compare little"
    compared = [name for name in theirs if name.startswith(("ndcg", "map", "recall", "precision", "mrr", "hit_rate"))]
    assert "ndcg_at_10" in compared
    assert {name: scores[name] for name in compared} == {name: theirs[name] for name in compared}

    corpus, queries, gold = contracts_task.given
    texts = [f"{row['title']} {row['text']}".strip() for row in corpus]
    products = oracle.encode(list(queries.values())) @ oracle.encode(texts).T
    right = [list(corpus["id"]).index(corpus_id) for corpus_id in gold.values()]
    ranks = (products > products[np.arange(len(right)), right][:, None]).sum(axis=1) + 1
    by_hand = np.where(ranks <= 10, 1 / np.log2(ranks + 1), 0).mean()
    assert scores["ndcg_at_10"] == pytest.approx(by_hand, abs=1e-4)  # mteb rounds to five digits


def test_grouped_rows_are_encoded_as_the_document_they_come_from(
    contracts_task: ContractsInMemory, minilm_late: LocalEncoder
) -> None:
    corpus, queries, _ = contracts_task.given
    asked = dict(list(queries.items())[:5])
    shuffled = corpus.remove_columns("title").shuffle(seed=3)
    found = search(MtebSearch(minilm_late, group_by_prefix=True), shuffled, asked, top_k=len(corpus))
    texts = dict(zip(corpus["id"], corpus["text"], strict=True))
    doc_ids = list(dict.fromkeys(corpus_id.rpartition("_")[0] for corpus_id in texts))
    assert any("_" in doc_id for doc_id in doc_ids), "split at the last underscore"
    expected: dict[str, dict[str, float]] = {query_id: {} for query_id in asked}
    for doc_id in doc_ids:
        ids = [corpus_id for corpus_id in texts if corpus_id.rpartition("_")[0] == doc_id]
        assert len(ids) > 10, "2 comes before 10"
        document = encoded(minilm_late, chunked(doc_id, [texts[corpus_id] for corpus_id in ids]))
        for query_id, query in asked.items():
            expected[query_id] |= zip(ids, expected_scores(minilm_late, query, document), strict=True)
    require_same(found, expected)


def test_context_is_what_grouping_changes(contracts_task: ContractsInMemory, minilm_late: LocalEncoder) -> None:
    grouped = evaluate(MtebSearch(minilm_late, group_by_prefix=True), contracts_task)
    alone = evaluate(MtebSearch(minilm_late), contracts_task)
    assert grouped["ndcg_at_10"] != alone["ndcg_at_10"]


def test_a_document_counts_as_much_as_its_best_chunk(minilm_late: LocalEncoder) -> None:
    texts = {"a/napoleon": " ".join(NAPOLEON * 3), "lease": "The law of Delaware governs the agreement."}
    spec = ChunkerSpec("recursive", 12, "tokens", 0)
    found = search(MtebSearch(minilm_late, spec), corpus_of(texts, ["Napoleon", ""]), QUESTIONS)
    expected: dict[str, dict[str, float]] = {query_id: {} for query_id in QUESTIONS}
    for corpus_id, text in {**texts, "a/napoleon": f"Napoleon {texts['a/napoleon']}"}.items():
        document = Document(corpus_id, text)
        chunks = load_chunker(spec, minilm_late.tokenizer).chunk(document)
        assert corpus_id == "lease" or len(chunks) > 3
        vectors = encoded(minilm_late, ChunkedDocument(document, chunks))
        for query_id, query in QUESTIONS.items():
            expected[query_id][corpus_id] = max(expected_scores(minilm_late, query, vectors))
    require_same(found, expected)


@pytest.fixture(scope="module")
def colbert(tmp_path_factory: pytest.TempPathFactory) -> LocalEncoder:
    return load_encoder(str(pylate(tmp_path_factory.mktemp("model") / "colbert", PYLATE)))


@pytest.mark.parametrize("grouped", [False, True])
def test_late_interaction_ranks_by_max_sim(colbert: LocalEncoder, grouped: bool) -> None:
    texts = {f"napoleon_{number}": text for number, text in enumerate(NAPOLEON)}
    found = search(MtebSearch(colbert, group_by_prefix=grouped), corpus_of(texts), QUESTIONS)
    alone = [chunked(corpus_id, [text]) for corpus_id, text in texts.items()]
    documents = [encoded(colbert, each) for each in ([chunked("napoleon", NAPOLEON)] if grouped else alone)]
    expected = {
        query_id: dict(
            zip(texts, [score for each in documents for score in expected_scores(colbert, query, each)], strict=True)
        )
        for query_id, query in QUESTIONS.items()
    }
    require_same(found, expected)


def test_mteb_runs_late_interaction(contracts_task: ContractsInMemory, colbert: LocalEncoder) -> None:
    model = MtebSearch(colbert)
    assert (model.mteb_model_meta.model_type, model.mteb_model_meta.embed_dim) == (["late-interaction"], 16)
    assert 0 <= evaluate(model, contracts_task)["ndcg_at_10"] <= 1


def test_what_has_no_text_is_not_ranked(minilm_late: LocalEncoder, caplog: pytest.LogCaptureFixture) -> None:
    texts = {"n_0": NAPOLEON[0], "n_1": " \n", "n_2": NAPOLEON[1], "empty_0": "", "m_0": "\u200b"}
    queries = {**QUESTIONS, "q2": "  "}
    with caplog.at_level(logging.WARNING, "ctxindex"):
        found = search(MtebSearch(minilm_late), corpus_of(texts), queries)
        grouped = search(MtebSearch(minilm_late, group_by_prefix=True), corpus_of(texts), queries)
        cut = search(MtebSearch(minilm_late, ChunkerSpec("tokens", 16, "tokens", 0)), corpus_of(texts), queries)
    for each in (found, grouped, cut):
        assert {query_id: set(scores) for query_id, scores in each.items()} == {
            "q0": {"n_0", "n_2"},
            "q1": {"n_0", "n_2"},
            "q2": set(),
        }
    assert caplog.text.count("3 documents of the corpus are not ranked, among them n_1 (no text that") == 3
    assert caplog.text.count("1 queries have no text") == 3
    together = encoded(minilm_late, chunked("n", NAPOLEON[:2]))
    expected = expected_scores(minilm_late, QUESTIONS["q0"], together)
    assert grouped["q0"] == pytest.approx(dict(zip(("n_0", "n_2"), expected, strict=True)), abs=TOLERANCE)


def test_a_corpus_and_queries_of_nothing(minilm_late: LocalEncoder, contracts_task: ContractsInMemory) -> None:
    model = MtebSearch(minilm_late)
    assert search(model, corpus_of({"a": ""}), QUESTIONS) == {"q0": {}, "q1": {}}
    assert search(model, corpus_of({"a": "text"}), {"q0": ""}) == {"q0": {}}
    task = ContractsInMemory(corpus_of({"a": "", "b": "b"}), {"q0": "", "q1": "b"}, {"q0": "a", "q1": "b"})
    assert evaluate(model, task)["ndcg_at_10"] == 0.5, "a query that finds nothing counts"


class Forgetful:
    """Implements `Encoder`: fails the documents named, and gives the others in reverse order."""

    def __init__(self, encoder: Encoder, failing: set[str]) -> None:
        self._encoder = encoder
        self._failing = failing
        self.spec, self.tokenizer = encoder.spec, encoder.tokenizer
        self.encode_queries = encoder.encode_queries
        self.seen: list[str] = []

    def encode_documents(self, documents: Iterable[ChunkedDocument]) -> Iterator[EncodedDocument | FailedDocument]:
        for source in reversed(list(documents)):
            self.seen.append(source.document.doc_id)
            if source.document.doc_id in self._failing:
                yield FailedDocument(source.document.doc_id, "no memory")
            else:
                yield from self._encoder.encode_documents([source])


def test_documents_that_fail_do_not_stop_a_run(minilm_late: LocalEncoder, caplog: pytest.LogCaptureFixture) -> None:
    texts = {"n_0": NAPOLEON[0], "n_1": NAPOLEON[1], "m_0": NAPOLEON[2]}
    with caplog.at_level(logging.WARNING, "ctxindex"):
        found = search(MtebSearch(Forgetful(minilm_late, {"n"}), group_by_prefix=True), corpus_of(texts), QUESTIONS)
    assert list(found["q0"]) == ["m_0"]
    assert "2 documents of the corpus are not ranked, among them n_0 (no memory), n_1 (no memory)" in caplog.text


class Flat(Forgetful):
    """Every chunk has the same vector, of which a product is one number of the query: equal to the last bit."""

    def encode_documents(self, documents: Iterable[ChunkedDocument]) -> Iterator[EncodedDocument | FailedDocument]:
        for result in super().encode_documents(documents):
            assert isinstance(result, EncodedDocument)
            yield replace(result, vectors=np.eye(1, self.spec.dim, dtype=np.float32))


def test_equal_scores_and_top_k(minilm_late: LocalEncoder) -> None:
    texts = dict.fromkeys(("b", "d", "a", "c"), NAPOLEON[0])
    found = search(MtebSearch(Flat(minilm_late, set())), corpus_of(texts), QUESTIONS, top_k=3)
    assert [list(scores) for scores in found.values()] == [["d", "c", "b"]] * 2, "as trec_eval orders them"


def test_an_id_that_comes_twice_is_ranked_once(minilm_late: LocalEncoder, caplog: pytest.LogCaptureFixture) -> None:
    corpus = Dataset.from_dict({"id": ["a", "b", "a"], "text": [NAPOLEON[0], NAPOLEON[1], "Who became emperor?"]})
    assert list(search(MtebSearch(minilm_late), corpus, QUESTIONS)["q0"]) == ["b", "a"]
    assert "1 rows of the corpus repeat an id" in caplog.text


@pytest.mark.parametrize("wrong", ["napoleon", "napoleon_", "napoleon_x", "_1", "napoleon_-1", "napoleon_1.5"])
def test_ids_that_say_nothing_of_documents(minilm_late: LocalEncoder, wrong: str) -> None:
    model = MtebSearch(minilm_late, group_by_prefix=True)
    with pytest.raises(UsageError, match=f"the corpus id '{wrong}' is not of the form docid_index"):
        model.index(corpus_of({"a_b_0": "text", wrong: "text"}))


def test_refusals(minilm_late: LocalEncoder) -> None:
    with pytest.raises(UsageError, match="leave the chunker out"):
        MtebSearch(minilm_late, ChunkerSpec("recursive", 64, "tokens", 0), group_by_prefix=True)
    with pytest.raises(UsageError, match="call index first"):
        MtebSearch(minilm_late).search(questions(QUESTIONS), top_k=3)


@pytest.mark.parametrize("grouped", [False, True])
def test_candidates_are_all_that_is_ranked(
    minilm_late: LocalEncoder, caplog: pytest.LogCaptureFixture, grouped: bool
) -> None:
    texts = {f"n_{number}": text for number, text in enumerate(NAPOLEON)} | {"m_0": "The law.", "l_0": "Delaware."}
    encoder = Forgetful(minilm_late, set())
    model = MtebSearch(encoder, group_by_prefix=grouped)
    everything = search(model, corpus_of(texts), QUESTIONS)
    encoder.seen.clear()
    top_ranked = {"q0": ["n_0", "m_0", "n_2", "not there"]}
    found = search(model, corpus_of(texts), QUESTIONS, top_ranked=top_ranked)
    kept = {corpus_id: score for corpus_id, score in everything["q0"].items() if corpus_id in top_ranked["q0"]}
    require_same(found, {"q0": kept, "q1": {}})
    assert set(encoder.seen) == ({"n", "m"} if grouped else {"n_0", "n_2", "m_0"}), "nobody asked for the rest"
    assert "1 queries have no documents to rank" in caplog.text


def texts_read(model: MtebSearch, corpus: Dataset) -> dict[str, tuple[str, str | None]]:
    model.index(corpus)
    assert model._corpus is not None
    sources = model._documents(model._corpus, None, {})
    return {source.document.doc_id: (source.document.text, source.document.title) for source in sources}


def test_texts_are_joined_as_mteb_joins_them(minilm_late: LocalEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    from mteb._create_dataloaders import create_dataloader
    from mteb.types import PromptType

    def theirs(rows: Dataset, kind: PromptType) -> list[str]:
        loader = create_dataloader(rows, task_metadata=ContractsInMemory.metadata, prompt_type=kind)
        return [text for batch in loader for text in batch["text"]]

    corpus = corpus_of({"a": " text ", "b": "text\n", "c": "text"}, ["A title", "", " "])
    read = texts_read(MtebSearch(minilm_late), corpus)
    assert [text for text, _ in read.values()] == theirs(corpus, PromptType.document)
    assert [title for _, title in read.values()] == ["A title", None, None]

    instructed = questions(QUESTIONS).add_column("instruction", ["Find the man.", "Find the law."])
    turns = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Napoleon."}]
    talks = Dataset.from_dict({"id": ["q0"], "text": [turns], "instruction": ["Find him."]})
    asked: list[str] = []
    original = minilm_late.encode_queries

    def listen(texts: Sequence[str]) -> Any:
        asked.extend(texts)
        return original(texts)

    monkeypatch.setattr(minilm_late, "encode_queries", listen)
    for rows in (questions(QUESTIONS), instructed, talks):
        asked.clear()
        model = MtebSearch(minilm_late)
        model.index(corpus)
        model.search(rows, top_k=1)
        assert asked == theirs(rows, PromptType.query)


def test_metadata_tells_settings_apart(minilm_late: LocalEncoder, minilm_independent: LocalEncoder) -> None:
    spec = ChunkerSpec("recursive", 64, "tokens", 0)
    models = [
        MtebSearch(minilm_late),
        MtebSearch(minilm_late, spec),
        MtebSearch(minilm_late, group_by_prefix=True),
        MtebSearch(minilm_independent),
        MtebSearch(minilm_independent, name="somebody/model"),
    ]
    meta = [model.mteb_model_meta for model in models]
    assert [each.name for each in meta] == [
        "ctxindex/minilm-late",
        "ctxindex/minilm-late-chunked",
        "ctxindex/minilm-late-grouped",
        "ctxindex/minilm-independent",
        "somebody/model",
    ]
    assert len({each.revision for each in meta}) == 4
    other = MtebSearch(minilm_late, ChunkerSpec("recursive", 65, "tokens", 0)).mteb_model_meta
    assert (other.name, other.revision == meta[1].revision) == (meta[1].name, False)
    model: SearchProtocol = models[0]
    assert isinstance(model, SearchProtocol)


def test_mteb_finds_results_in_its_cache(
    contracts_task: ContractsInMemory, minilm_late: LocalEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = mteb.ResultCache(tmp_path)
    scores = evaluate(MtebSearch(minilm_late), contracts_task, cache)
    monkeypatch.delattr(MtebSearch, "search")
    assert evaluate(MtebSearch(minilm_late), contracts_task, cache)["ndcg_at_10"] == scores["ndcg_at_10"]


def test_without_mteb_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "ctxindex.integrations.mteb")
    for name in [name for name in sys.modules if name.split(".")[0] == "mteb"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match=r"evaluation with mteb needs .* 'ctxindex\[mteb\]'"):
        importlib.import_module("ctxindex.integrations.mteb")
