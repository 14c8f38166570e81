"""The corpus context of an index: made with the first ingest, kept in the store, read with ever after."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctxindex import Index
from ctxindex.encoding.cde.corpus_context import CorpusContext
from ctxindex.encoding.cde.encoder import CdeEncoder
from ctxindex.encoding.cde.folder import make_native_cde
from ctxindex.encoding.cde.settings import NativeCde
from ctxindex.errors import ConfigError, MismatchError, UsageError
from ctxindex.indexing.freezing import FrozenContext, SampledChunk, thaw_context
from ctxindex.types import StoredChunk
from tests.encoding.cde.tiny_cde import CONTEXT, save_published
from tests.encoding.tiny import save_sentence_transformer

STORES = ("lancedb", "qdrant")
SIZE = 3
NAMES = ("one", "two", "three", "four", "five")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A native CDE model of a tiny BERT, trained with three texts."""
    place = tmp_path_factory.mktemp("models")
    base = save_sentence_transformer(place / "base")
    return str(make_native_cde(str(base), place / "cde", NativeCde(context_size=SIZE, context_bias_init=1.0)))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_published(tmp_path_factory.mktemp("models") / "published", "v1"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "docs"
    place.mkdir()
    for name in NAMES:
        write(place, name)
    return place


def write(folder: Path, name: str) -> None:
    lines = [f"{name} clause {number}: the party of part {number} shall pay {name}." for number in range(12)]
    (folder / f"{name}.txt").write_text("\n\n".join(lines), encoding="utf-8")


@pytest.fixture(params=STORES)
def where(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    return {"store": request.param, "path": tmp_path / "db", "device": "cpu", "threads": 1}


@pytest.fixture
def here(tmp_path: Path) -> dict[str, Any]:
    return {"store": "lancedb", "path": tmp_path / "db", "device": "cpu", "threads": 1}


def everything(index: Index) -> dict[str, list[StoredChunk]]:
    return {record.doc_id: index.chunks(record.doc_id, vectors=True) for record in index.records()}


def numbers(chunks: list[StoredChunk]) -> np.ndarray[Any, Any]:
    return np.stack([np.asarray(chunk.vector) for chunk in chunks])


def frozen(index: Index) -> FrozenContext:
    assert index.spec is not None
    return thaw_context(index.store.read_context(), index.spec.encoder)


def test_the_first_ingest_freezes_and_later_ones_read_with_what_is_there(
    where: dict[str, Any], folder: Path, model: str
) -> None:
    with Index.open(model=model, **where) as index:
        assert index.ingest(folder).new == len(NAMES)
        assert index.spec is not None
        assert index.spec.encoder.method == "cde"
        first, fingerprint = frozen(index), index.spec.fingerprint
        assert first.context.context_id == index.spec.encoder.context
        assert (first.context.size, first.documents, first.context.texts) == (SIZE, len(NAMES), ())
        assert len({one.doc_id for one in first.sample}) == SIZE
        before = everything(index)
    write(folder, "six")
    with Index.open(**where) as index:  # another process: all comes from the store
        report = index.ingest(folder)
        assert (report.new, report.unchanged) == (1, len(NAMES))
        assert index.spec is not None
        assert index.spec.fingerprint == fingerprint
        np.testing.assert_array_equal(frozen(index).context.vectors, first.context.vectors)
        after = everything(index)
        for doc_id, chunks in before.items():
            np.testing.assert_array_equal(numbers(after[doc_id]), numbers(chunks))
        assert index.verify(folder).agrees
        assert index.searcher().encoder.spec.context == first.context.context_id
        assert len(index.search("Who shall pay?", 2)) == 2


def test_a_restart_reproduces_vectors_bit_for_bit(here: dict[str, Any], folder: Path, model: str) -> None:
    with Index.open(model=model, **here) as index:
        index.ingest(folder)
        before = everything(index)["docs/two.txt"]
        query = index.searcher().encoder.encode_queries(["Who shall pay?"])
    with Index.open(**here) as index:
        name = frozen(index).context.context_id
        index.delete(["docs/two.txt"])
        assert index.ingest(folder).new == 1
        assert frozen(index).context.context_id == name
        np.testing.assert_array_equal(numbers(everything(index)["docs/two.txt"]), numbers(before))
        np.testing.assert_array_equal(index.searcher().encoder.encode_queries(["Who shall pay?"]), query)


def test_the_sample_is_that_of_all_documents_in_any_order(here: dict[str, Any], folder: Path, model: str) -> None:
    names = [folder / f"{name}.txt" for name in NAMES]
    found = []
    for number, files in enumerate((names, names[::-1])):
        with Index.open(f"index{number}", model=model, **here) as index:
            index.ingest(*files)
            found.append(frozen(index))
            vectors = everything(index)
    assert found[0].context.context_id == found[1].context.context_id
    assert found[0].sample == found[1].sample
    assert len(vectors) == len(NAMES)


def test_a_run_killed_before_the_first_document_goes_on_with_the_same_context(
    where: dict[str, Any], folder: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    with Index.open("undisturbed", model=model, **where) as index:
        index.ingest(folder)
        wanted = everything(index)
    with Index.open("killed", model=model, **where) as index:
        with monkeypatch.context() as patch:
            patch.setattr(index.store, "replace", die)
            with pytest.raises(Killed):
                index.ingest(folder)
        made = frozen(index)
    write(folder, "zero")  # it came too late to be in the context
    with Index.open("killed", **where) as index:
        assert index.ingest(folder).new == len(NAMES) + 1
        assert frozen(index).made_at == made.made_at
        for doc_id, chunks in wanted.items():
            np.testing.assert_array_equal(numbers(everything(index)[doc_id]), numbers(chunks))


def test_a_run_killed_before_the_index_is_made_has_written_nothing(
    where: dict[str, Any], folder: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with Index.open(model=model, **where) as index:
        with monkeypatch.context() as patch:
            patch.setattr(CdeEncoder, "encode_context", die)
            with pytest.raises(KeyboardInterrupt):
                index.ingest(folder)
        assert index.spec is None
        assert index.ingest(folder).new == len(NAMES)


def test_a_missing_a_foreign_and_a_damaged_context_are_refused(
    here: dict[str, Any], folder: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Index.open(model=model, **here) as index:
        index.ingest(folder)
        content = index.store.read_context()
        assert content is not None
    other = FrozenContext.from_bytes(content)
    foreign = FrozenContext(
        CorpusContext("ab" * 32, other.context.model, other.context.vectors), other.sample, 5, 0, other.made_at
    )
    damaged = content[:-1] + bytes([content[-1] ^ 1])
    cases = {"holds none": None, "holds another": foreign.to_bytes(), "damaged": damaged, "is damaged": b"nothing"}
    for words, stored in cases.items():
        with Index.open(**here) as index:
            monkeypatch.setattr(index.store, "read_context", lambda stored=stored: stored)
            index._tools._read_context = index.store.read_context
            with pytest.raises(MismatchError, match=f"{words}.*--index NAME|--index NAME.*{words}"):
                index.search("Who shall pay?")


def test_what_is_stored_comes_back() -> None:
    vectors = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
    context = CorpusContext("12" * 32, "34" * 32, vectors, prefix="search: ")
    one = FrozenContext(context, (SampledChunk("ä\nb", 3, "56"),), 7, 5, "2026-01-01T00:00:00+00:00")
    again = FrozenContext.from_bytes(one.to_bytes())
    np.testing.assert_array_equal(again.context.vectors, vectors)
    assert again.context.prefix == "search: "
    assert (again.sample, again.documents, again.seed, again.made_at) == (one.sample, 7, 5, one.made_at)


def test_without_a_corpus_the_model_reads_with_its_stand_in(here: dict[str, Any], folder: Path, model: str) -> None:
    with Index.open(model=model, context="null", **here) as index:
        index.ingest(folder)
        assert index.spec is not None
        assert index.spec.encoder.context == "null"
        assert index.store.read_context() is None
        assert index.search("Who shall pay?")
    with Index.open(context="corpus", **here) as index, pytest.raises(MismatchError, match="context: index 'null'"):
        index.ingest(folder)


def test_where_no_document_can_be_read_the_refusal_names_all(
    here: dict[str, Any], folder: Path, model: str, tmp_path: Path
) -> None:
    """There is no spec without a context, and no record without a spec: as soon as there is one, all are recorded."""
    bad = tmp_path / "bad"
    bad.mkdir()
    for number in range(11):
        (bad / f"broken{number:02}.pdf").write_bytes(b"%PDF-1.4 no more of it")
    (bad / "lines.jsonl").write_text("no JSON\n", encoding="utf-8")  # known to be none before anything is read
    with Index.open(model=model, **here) as index:
        with pytest.raises(UsageError) as refused:
            index.ingest(bad)
        assert index.spec is None
        told = str(refused.value).splitlines()
        assert "in the context of their corpus" in told[0]
        assert "no index was made and nothing was recorded" in told[0]
        assert len(told) == 1 + 10 + 1 + 1
        assert all(line.startswith("  bad/broken") and ": " in line[14:] for line in told[1:11])
        assert told[11] == "  … and 2 more"
        assert "add a document with text, and ingest again" in told[12]
        with pytest.raises(UsageError, match=r"  lines\.jsonl: .*broken JSON"):
            index.ingest(bad / "lines.jsonl")
        assert index.spec is None
        report = index.ingest(bad, folder)
        assert (report.new, len(report.failures)) == (len(NAMES), 12)
        assert len(index.status().failed) == 12
    with Index.open("null", model=model, context="null", **here) as index:  # needs no corpus
        assert len(index.ingest(bad).failures) == 12
        assert len(index.status().failed) == 12


def test_what_cannot_be_is_refused_before_an_index_is_made(here: dict[str, Any], folder: Path, model: str) -> None:
    with Index.open(model=model, context="elsewhere", **here) as index, pytest.raises(ConfigError, match="--context"):
        index.ingest(folder)
    with (
        Index.open(model="minilm", method="late", context="null", **here) as index,
        pytest.raises(ConfigError, match="--context is for method cde"),
    ):
        index.ingest(folder)


def test_seed_and_sampling_are_chosen_once(here: dict[str, Any], folder: Path, model: str) -> None:
    samples: dict[int | None, tuple[SampledChunk, ...]] = {}
    names: set[str] = set()
    for seed, sampling in ((None, None), (0, "by-document"), (1, None), (2, "uniform-chunk")):
        with Index.open(f"i{len(samples)}", model=model, context_seed=seed, context_sampling=sampling, **here) as index:
            index.ingest(folder)
            made = frozen(index)
            assert (made.seed, made.sampling) == (seed or 0, sampling or "by-document")
            samples[seed] = made.sample
            names.add(made.context.context_id)
            status = index.status(drift=True).context
            assert status is not None
            assert (status.seed, status.sampling) == (made.seed, made.sampling)
            assert status.drift is not None
    assert samples[None] == samples[0] != samples[1]
    assert len(names) == 3, "and every seed has a context of its own"
    documents = {one.doc_id for one in samples[2]}
    assert len(documents) < SIZE  # some document gave two before all had given one
    again: dict[str, Any] = {"context_seed": 2, "context_sampling": "uniform-chunk"}
    with Index.open("i3", **again, **here) as index:
        assert index.ingest(folder).unchanged == len(NAMES)
    for name, value, told in (
        ("context_seed", 4, "context_seed: index 2, asked for 4"),
        ("context_sampling", "by-document", "context_sampling: index 'uniform-chunk', asked for 'by-document'"),
    ):
        with Index.open("i3", **{**again, name: value}, **here) as index, pytest.raises(MismatchError, match=told):
            index.ingest(folder)


def test_a_context_stored_without_its_sampling_was_drawn_by_document() -> None:
    context = CorpusContext("12" * 32, "34" * 32, np.ones((1, 2), np.float32))
    one = FrozenContext(context, (), 1, 0, "2026-01-01T00:00:00+00:00")
    head, _, rest = one.to_bytes().partition(b"\n")
    older = {name: value for name, value in json.loads(head).items() if name != "sampling"}
    assert FrozenContext.from_bytes(json.dumps(older).encode() + b"\n" + rest).sampling == "by-document"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"context_seed": 1, "context": "null"}, "--context-seed: there is no sample to draw with --context null"),
        ({"context_seed": -1}, "--context-seed -1 must be 0 or more"),
        ({"context_sampling": "first"}, "--context-sampling first is none of by-document, uniform-chunk"),
        ({"context_seed": 1, "model": "minilm", "method": "late"}, "--context-seed is for method cde"),
    ],
)
def test_a_sample_that_cannot_be_drawn_is_refused(
    settings: dict[str, Any], told: str, here: dict[str, Any], folder: Path, model: str
) -> None:
    with Index.open(**{"model": model, **settings}, **here) as index:
        with pytest.raises(ConfigError, match=told):
            index.ingest(folder)
        assert index.spec is None


def test_an_index_without_a_context_refuses_a_seed(here: dict[str, Any], folder: Path) -> None:
    with Index.open(model="minilm", method="independent", **here) as index:
        index.ingest(folder)
    with (
        Index.open(context_seed=1, **here) as index,
        pytest.raises(MismatchError, match="context_seed: index None, asked for 1"),
    ):
        index.ingest(folder)


def test_a_corpus_smaller_than_the_context(here: dict[str, Any], folder: Path, model: str, published: str) -> None:
    for name in NAMES[1:]:
        (folder / f"{name}.txt").unlink()
    (folder / "one.txt").write_text("Napoleon was born in Corsica.", encoding="utf-8")
    with Index.open("native", model=model, **here) as index:  # takes what there is
        index.ingest(folder)
        assert (frozen(index).context.size, len(frozen(index).sample)) == (1, 1)
    with Index.open("published", model=published, **here) as index:  # fills up
        index.ingest(folder)
        made = frozen(index)
        assert (made.context.size, len(made.sample), made.documents) == (CONTEXT, 1, 1)
    with Index.open("published", **here) as index:
        assert index.search("Where was Napoleon born?")[0].doc_id == "docs/one.txt"


def test_another_model_does_not_read_with_the_context_of_this_one(
    here: dict[str, Any], folder: Path, model: str, tmp_path: Path
) -> None:
    with Index.open(model=model, **here) as index:
        index.ingest(folder)
    other = make_native_cde(
        str(save_sentence_transformer(tmp_path / "base", "distilbert")), tmp_path / "other", NativeCde(SIZE)
    )
    with Index.open(model=str(other), **here) as index, pytest.raises(MismatchError, match="is not the one that built"):
        index.search("Who shall pay?")
