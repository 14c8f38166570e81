"""Evaluators: the right scorer for each configuration, nothing encoded twice, and who watches is told."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctxindex.chunking import load_chunker
from ctxindex.encoding.local import LocalEncoder
from ctxindex.encoding.trained import TrainedSettings, write_settings
from ctxindex.errors import ConfigError, ModelError
from ctxindex.evaluation import Configuration, Corpus, Dataset, GoldSpan, Query, Run, cut, parse_configurations
from ctxindex.evaluation.cache import Kept
from ctxindex.evaluation.datasets import StoredVectors
from ctxindex.evaluation.evaluator import Evaluator, Stored, chunker_of, with_method
from ctxindex.evaluation.results import SweepPoint
from ctxindex.spec import ChunkerSpec
from ctxindex.types import ChunkedDocument, Document, EncodedDocument, Section
from tests.encoding.tiny import save_sentence_transformer
from tests.evaluation.builders import PEOPLE, QUESTIONS, FakeEncoder, corpus_of, people, pieces


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_sentence_transformer(tmp_path_factory.mktemp("model") / "tiny"))


def run(evaluator: Evaluator, text: str, corpus: Corpus | None = None) -> Run:
    (configuration,) = parse_configurations([text])
    (found,) = evaluator.run(configuration, [corpus or people()])
    return found


class Watched:
    """Implements `Watch`: remembers what it was told, in order."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def begin(self, corpus: Corpus, configuration: Configuration) -> None:
        self.told.append(("begin", corpus.name, configuration.name))

    def advance(self, tokens: int) -> None:
        self.told.append(tokens)

    def done(self, doc_id: str, failure: str | None) -> None:
        self.told.append((doc_id, failure))

    def end(self, run: Run) -> None:
        self.told.append(("end", run.corpus.name, run.name))


class Lines:
    """Implements `WriteContexts`."""

    def __call__(self, documents: Sequence[ChunkedDocument]) -> Mapping[str, Sequence[str]]:
        return {
            one.document.doc_id: [f"zebra {one.document.doc_id} place{chunk.ordinal}" for chunk in one.chunks]
            for one in documents
        }

    def notes(self) -> Mapping[str, str]:
        return {"llm": "by hand"}


def test_corpora_are_run_in_their_order_and_at_their_points(tiny: str) -> None:
    corpora = [people(name="first"), people(name="second").part([0, 1], [0, 1])]
    for text in ("bm25", f"late,model={tiny}"):
        (configuration,) = parse_configurations([text])
        points = [None, SweepPoint("corpus-size", 2, 0)]
        runs = list(Evaluator(device="cpu").run(configuration, corpora, points))
        assert [one.corpus for one in runs] == corpora
        assert [one.point for one in runs] == points
        assert [one.point for one in Evaluator(device="cpu").run(configuration, corpora)] == [None, None]
        assert all(one.configuration is configuration for one in runs)


def test_a_run_tells_the_method_and_the_model(tiny: str) -> None:
    evaluator = Evaluator(device="cpu")
    found = run(evaluator, f"late,model={tiny}")
    assert (found.model, found.notes["method"], found.notes["dtype"]) == (tiny, "late", "float32")
    assert found.notes["encoder"]["digest"]
    found = run(evaluator, f"model={tiny}")
    assert found.notes["method"] == "independent", "the model's own"
    found = run(evaluator, "bm25")
    assert (found.model, found.notes) == ("", {"method": "bm25"})


def test_who_watches_is_told_everything_in_order(tiny: str, tmp_path: Path) -> None:
    watch = Watched()
    evaluator = Evaluator(device="cpu", watch=watch, cache=tmp_path)
    name = f"late,model={tiny}"
    first = run(evaluator, name)
    tokens = [one for one in watch.told if isinstance(one, int)]
    measured = chunker_of(ChunkerSpec("markdown", 64, "tokens", 0), tiny)._tokenizer  # type: ignore[attr-defined]
    assert sum(tokens) == sum(measured.count([text for parts in PEOPLE.values() for text in parts]))
    documents = [one for one in watch.told if not isinstance(one, int)]
    assert documents[0] == ("begin", "set", name)
    assert sorted(documents[1:-1]) == sorted((doc_id, None) for doc_id in PEOPLE)
    assert documents[-1] == ("end", "set", name)
    watch.told.clear()
    second = run(evaluator, name)
    assert watch.told == [("begin", "set", name), *((doc_id, None) for doc_id in PEOPLE), ("end", "set", name)]
    assert (first.cached, second.cached) == (0, first.corpus.n_chunks)
    watch.told.clear()
    run(evaluator, "bm25")
    assert watch.told[1:-1] == [(doc_id, None) for doc_id in PEOPLE]


def test_vectors_are_shared_by_what_decides_the_same_vectors(tiny: str, tmp_path: Path) -> None:
    evaluator = Evaluator(device="cpu", cache=tmp_path)
    run(evaluator, f"late,model={tiny}")
    n_chunks = people().n_chunks
    assert run(evaluator, f"late,anchor=0,model={tiny}").cached == n_chunks
    assert run(evaluator, f"late,anchor=8,model={tiny}").cached == 0
    assert run(evaluator, f"independent,model={tiny}").cached == 0
    assert run(evaluator, f"model={tiny}").cached == n_chunks
    assert run(evaluator, f"independent+title,model={tiny}").cached == n_chunks, "there are no titles"
    assert run(Evaluator(device="cpu", cache=tmp_path), f"late,model={tiny}").cached == n_chunks


def test_a_trained_model_is_evaluated_as_it_was_trained(tiny: str, tmp_path: Path) -> None:
    trained = tmp_path / "trained"
    shutil.copytree(tiny, trained)
    write_settings(trained, TrainedSettings("late", anchor=8))
    evaluator, n_chunks = Evaluator(device="cpu", cache=tmp_path / "cache"), people().n_chunks
    found = run(evaluator, f"model={trained}")
    assert (found.notes["method"], found.notes["encoder"]["anchor"]) == ("late", 8)
    assert run(evaluator, f"late,model={trained}").cached == n_chunks
    assert run(evaluator, f"late,anchor=8,model={tiny}").cached == n_chunks, "the same vectors, chosen by hand"
    without = run(evaluator, f"late,anchor=0,model={trained}")
    assert (without.cached, without.notes["encoder"]["anchor"]) == (0, 0)
    assert run(evaluator, f"late,model={tiny}").cached == n_chunks
    (settled,) = (with_method(one) for one in parse_configurations([f"model={trained}"]))
    assert settled.method == "late"


def test_without_a_cache_vectors_stay_for_one_run(tiny: str) -> None:
    evaluator = Evaluator(device="cpu")
    (late,) = parse_configurations([f"late,model={tiny}"])
    assert [one.cached for one in evaluator.run(late, [people(name="a"), people(name="b")])] == [0, people().n_chunks]
    assert run(evaluator, f"late,model={tiny}").cached == 0


def test_a_prefix_is_found_by_its_words(tiny: str) -> None:
    sections = (Section(0, ("Childhood",)),)
    document, spans = pieces("curie", PEOPLE["curie"], title="Pioneers of physics", sections=sections)
    asked = tuple(Query(text, text, (GoldSpan("curie", *spans[0]),)) for text in ("Poland", "pioneers", "childhood"))
    corpus = cut(Dataset("set", (document,), asked, {"curie": spans}), None)
    for text, found in (("bm25", [0, 0, 0]), ("bm25+title", [0, 1, 0]), ("bm25+headings", [0, 1, 1])):
        assert run(Evaluator(), text, corpus).values["document_hit@1"].tolist() == found, text


def test_a_prefix_before_independent_chunks_is_encoded_with_them(minilm_independent: LocalEncoder) -> None:
    corpus = people(titles={doc_id: f"About {doc_id}" for doc_id in PEOPLE})
    found = run(Evaluator(device="cpu"), "independent+title,model=minilm", corpus)
    texts = [f"About {doc_id}\n{text}" for doc_id, parts in PEOPLE.items() for text in parts]
    vectors = np.asarray(minilm_independent.encode_queries(texts))  # MiniLM reads both alike
    scores = np.asarray(minilm_independent.encode_queries([text for text, _ in QUESTIONS])) @ vectors.T
    np.testing.assert_allclose(found.ranking.scores[:, :9], -np.sort(-scores, axis=1), atol=1e-5)


def test_lines_of_context_are_read_and_their_writer_is_noted() -> None:
    corpus = corpus_of(PEOPLE, [("zebra curie place1", [("curie", 1)])])
    found = run(Evaluator(contexts=Lines()), "bm25+context", corpus)
    assert found.ranking.gold_rank.tolist() == [1]
    assert found.notes == {"method": "bm25", "llm": "by hand"}
    assert run(Evaluator(contexts=Lines()), "bm25", corpus).notes == {"method": "bm25"}


@pytest.mark.parametrize("text", ["bm25+context", "contextual"])
def test_lines_of_context_need_a_writer(text: str) -> None:
    with pytest.raises(ConfigError, match="say which with --llm MODEL"):
        run(Evaluator(device="cpu"), text)


def test_stored_vectors_are_ranked_as_they_are() -> None:
    corpus, encoder = people(), FakeEncoder()
    vectors = {
        one.document.doc_id: Kept(one.vectors, None, 0.0)
        for one in encoder.encode_documents(corpus.documents)
        if isinstance(one, EncodedDocument)
    }
    vectors["curie"] = vectors["napoleon"]
    encoder.encoded.clear()
    watch = Watched()
    found = run(Evaluator(stored=Stored(encoder, vectors), watch=watch), "stored", corpus)
    assert encoder.encoded == []
    assert (found.cached, found.model, found.notes["method"]) == (9, "fake", "independent")
    matrix = np.concatenate([vectors[name].vectors for name in corpus.document_names])
    scores = np.asarray(encoder.encode_queries([text for text, _ in QUESTIONS])) @ matrix.T
    np.testing.assert_allclose(found.ranking.scores[:, :9], -np.sort(-scores, axis=1), atol=1e-6)
    assert watch.told[1:-1] == [(doc_id, None) for doc_id in PEOPLE]


@pytest.mark.parametrize("lengths", [None, ((1, 1), (2,))])
def test_stored_vectors_come_in_the_order_of_the_documents(lengths: Any) -> None:
    vectors = (np.ones((2, 6), np.float32), np.zeros((2, 6), np.float32))
    dataset = Dataset("set", (Document("b", "b"), Document("a", "a")), ())
    found = Stored.of(FakeEncoder(), dataset, StoredVectors(vectors, lengths)).vectors
    assert list(found) == ["b", "a"]
    assert found["b"].vectors is vectors[0]
    assert [one.lengths for one in found.values()] == list(lengths or (None, None))


def test_stored_vectors_need_an_index() -> None:
    with pytest.raises(ConfigError, match=r"stored vectors are those of an index: .*--index NAME"):
        run(Evaluator(), "stored")


def test_models_and_settings_that_do_not_fit_are_refused(tiny: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="missing-model"):
        run(Evaluator(device="cpu"), f"model={tmp_path / 'missing-model'}")
    with pytest.raises(ConfigError, match="--dims 99999"):
        run(Evaluator(device="cpu"), f"late,dims=99999,model={tiny}")
    with pytest.raises(ModelError, match="late-interaction"):
        run(Evaluator(device="cpu"), f"late-interaction,model={tiny}")


def test_the_seed_is_that_of_the_intervals() -> None:
    asked = [("born Napoleon", [("napoleon", piece % 3)]) for piece in range(25)]
    first, again, other = (run(Evaluator(seed=seed), "bm25", corpus_of(PEOPLE, asked)).metrics for seed in (1, 1, 2))
    assert first == again != other
    assert {name: one.mean for name, one in first.items()} == {name: one.mean for name, one in other.items()}


def test_the_chunker_is_that_of_an_index_with_the_model(minilm_late: LocalEncoder, tmp_path: Path) -> None:
    spec = ChunkerSpec("recursive", 16, "tokens", 0)
    document = Document("a", "\n\n".join(" ".join(parts) for parts in PEOPLE.values()))
    assert chunker_of(spec, None).chunk(document) == load_chunker(spec, minilm_late.tokenizer).chunk(document)
    with pytest.raises(ModelError):
        chunker_of(spec, str(tmp_path))
    with pytest.raises(ConfigError, match="--chunk-size 1 is too small"):
        chunker_of(ChunkerSpec("recursive", 1, "tokens", 0), None)
