"""Published CDE checkpoints, against what their authors' code is described to compute."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ctxindex.encoding import EncoderOptions, load_encoder, open_checkpoint
from ctxindex.encoding.cde.corpus_context import CorpusContext
from ctxindex.encoding.cde.published.encoder import PublishedCdeEncoder, fill_context
from ctxindex.encoding.cde.published.model import context_positions
from ctxindex.encoding.encoder import restore_encoder
from ctxindex.errors import ConfigError, MismatchError, ModelError, UsageError
from ctxindex.types import EncodedDocument
from tests.encoding.cde.tiny_cde import CONTEXT, Oracle, Version, save_published
from tests.encoding.stand_in import chunked
from tests.encoding.tiny import HIDDEN, TEXTS, write_json

VERSIONS: tuple[Version, ...] = ("v1", "v2")
QUERIES = ["Which law governs the agreement?", "exile", "Ärger: what of naïve 東京 in the year 1769, or early?"]
TOLERANCE = 2e-5


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[Version, Path]:
    return {version: save_published(tmp_path_factory.mktemp(version), version) for version in VERSIONS}


@pytest.fixture(scope="module")
def encoders(folders: dict[Version, Path]) -> dict[Version, PublishedCdeEncoder]:
    return {version: opened(folder) for version, folder in folders.items()}


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> Version:
    found: Version = request.param
    return found


def opened(folder: Path, **more: Any) -> PublishedCdeEncoder:
    """The encoder of a folder behind the context of `TEXTS`."""
    encoder = load_encoder(str(folder), EncoderOptions(device="cpu", dtype="float32", **more))
    assert isinstance(encoder, PublishedCdeEncoder)
    return encoder.with_context(encoder.encode_context(TEXTS))


def variant(encoder: PublishedCdeEncoder, folder: Path, **config: Any) -> Path:
    """The same checkpoint with other entries in its config.json."""
    shutil.copytree(encoder.spec.model, folder, dirs_exist_ok=True)
    write_json(folder / "config.json", {**json.loads((folder / "config.json").read_text()), **config})
    return folder


def test_both_stages_are_as_described(
    version: Version, folders: dict[Version, Path], encoders: dict[Version, PublishedCdeEncoder]
) -> None:
    encoder, oracle = encoders[version], Oracle(folders[version], version)
    context = encoder.encode_context(TEXTS)
    expected = oracle.context(TEXTS)
    assert (context.vectors.dtype, context.vectors.shape) == (np.dtype(np.float32), (CONTEXT, HIDDEN))
    np.testing.assert_allclose(context.vectors, expected.numpy(), atol=TOLERANCE)
    assert not np.allclose(np.linalg.norm(context.vectors, axis=1), 1, atol=0.05)  # no unit vectors
    vectors = encoder.encode_queries(QUERIES)
    wanted = [oracle.vector(expected, f"search_query: {query}").numpy() for query in QUERIES]
    np.testing.assert_allclose(vectors, wanted, atol=TOLERANCE)
    (encoded,) = encoder.encode_documents([chunked("a", TEXTS)])
    assert isinstance(encoded, EncodedDocument)
    wanted = [oracle.vector(expected, f"search_document: {text}").numpy() for text in TEXTS]
    np.testing.assert_allclose(encoded.vectors, wanted, atol=TOLERANCE)


def test_the_spec_says_what_it_is(version: Version, encoders: dict[Version, PublishedCdeEncoder]) -> None:
    spec = encoders[version].spec
    assert (spec.method, spec.pooling, spec.windows, spec.max_tokens) == ("cde", "inclusive", "chunk", 64)
    assert (spec.query_prefix, spec.document_prefix) == ("search_query: ", "search_document: ")
    again = load_encoder(spec.model, EncoderOptions.of(spec, "cpu"))
    assert again.spec.context == ""
    assert again.spec.files == spec.files
    assert isinstance(again, PublishedCdeEncoder)
    assert again.with_context(again.encode_context(TEXTS)).spec == spec


@pytest.mark.parametrize(("which", "least", "most"), [("v1", 0.0, 1e-5), ("v2", 1e-3, 2.0)])
def test_the_order_of_the_context_counts_in_v2_alone(
    which: Version, least: float, most: float, encoders: dict[Version, PublishedCdeEncoder]
) -> None:
    encoder = encoders[which]
    context = encoder.encode_context(TEXTS)
    turned = encoder.with_context(replace(context, context_id="turned", vectors=context.vectors[::-1]))
    difference = np.abs(turned.encode_queries(QUERIES) - encoder.encode_queries(QUERIES)).max()
    assert least <= difference <= most


def test_v1_rotates_what_stands_behind_the_context_and_nothing_before(
    tmp_path: Path, encoders: dict[Version, PublishedCdeEncoder]
) -> None:
    plain = encoders["v1"]
    rotated = opened(variant(plain, tmp_path, disable_transductive_rotary_embedding=False))
    np.testing.assert_array_equal(rotated.encode_context(TEXTS).vectors, plain.encode_context(TEXTS).vectors)
    assert np.abs(rotated.encode_queries(QUERIES) - plain.encode_queries(QUERIES)).max() > 1e-3
    layout = open_checkpoint(plain.spec.model).published
    assert layout is not None
    assert context_positions(layout, 3).tolist() == [0] * CONTEXT + list(range(CONTEXT, CONTEXT + 8 + 3))


def test_another_context_gives_other_vectors(version: Version, encoders: dict[Version, PublishedCdeEncoder]) -> None:
    encoder = encoders[version]
    other = encoder.with_context(encoder.encode_context([*QUERIES, "12 %", "terminated"]))
    assert other.spec.context != encoder.spec.context
    assert np.abs(other.encode_queries(QUERIES) - encoder.encode_queries(QUERIES)).max() > 1e-3
    same = encoder.with_context(encoder.encode_context(TEXTS))
    assert same.spec.context == encoder.spec.context
    np.testing.assert_array_equal(same.encode_queries(QUERIES), encoder.encode_queries(QUERIES))


def test_no_vector_depends_on_its_batch(version: Version, encoders: dict[Version, PublishedCdeEncoder]) -> None:
    encoder = encoders[version]
    together = encoder.encode_queries([*QUERIES, *TEXTS])
    alone = np.concatenate([encoder.encode_queries([query]) for query in [*QUERIES, *TEXTS]])
    np.testing.assert_allclose(together, alone, atol=TOLERANCE)
    narrow = opened(Path(encoder.spec.model), batch_tokens=40)
    np.testing.assert_allclose(narrow.encode_context(TEXTS).vectors, encoder.encode_context(TEXTS).vectors, atol=2e-5)
    np.testing.assert_allclose(narrow.encode_queries(QUERIES), together[: len(QUERIES)], atol=TOLERANCE)


def test_batches_count_what_stands_in_front(folders: dict[Version, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = opened(folders["v2"], batch_tokens=100)
    sizes: list[int] = []
    backbone = encoder.load()
    whole = backbone.place_sums

    def counted(rows: Any) -> Any:
        sizes.append(len(rows) * (CONTEXT + 8 + max(row.length for row in rows)))
        return whole(rows)

    monkeypatch.setattr(backbone, "place_sums", counted)
    encoder.encode_queries(["exile"] * 12)
    assert len(sizes) > 2
    assert max(sizes) <= 100


def test_the_context_has_exactly_the_size_of_training(
    version: Version, encoders: dict[Version, PublishedCdeEncoder]
) -> None:
    encoder = encoders[version]
    context = encoder.encode_context(TEXTS)
    for texts in (TEXTS[:-1], [*TEXTS, "one more"], []):
        with pytest.raises(ConfigError, match=rf"trained with a context of {CONTEXT} texts, and here are {len(texts)}"):
            encoder.encode_context(texts)
    for rows in (CONTEXT - 1, CONTEXT + 1):
        with pytest.raises(ConfigError, match=rf"{CONTEXT} vectors of {HIDDEN} .* fill_context"):
            encoder.with_context(replace(context, vectors=np.ones((rows, HIDDEN), dtype=np.float32)))
    with pytest.raises(ConfigError, match="finite"):
        encoder.with_context(replace(context, vectors=np.full((CONTEXT, HIDDEN), np.nan, dtype=np.float32)))
    with pytest.raises(UsageError, match="nothing in the context's text ' '"):
        encoder.encode_context([*TEXTS[:-1], " "])


def test_a_seed_samples_and_repeats(encoders: dict[Version, PublishedCdeEncoder]) -> None:
    encoder = encoders["v1"]
    few = encoder.encode_context(TEXTS[:2], seed=3)
    counts = [int((few.vectors == row).all(axis=1).sum()) for row in np.unique(few.vectors, axis=0)]
    assert sorted(counts) == [2, 3]
    again = encoder.encode_context(TEXTS[:2], seed=3)
    assert again.context_id == few.context_id
    np.testing.assert_array_equal(again.vectors, few.vectors)
    many = encoder.encode_context([*TEXTS, *QUERIES], seed=3)
    assert len(np.unique(many.vectors, axis=0)) == CONTEXT
    with pytest.raises(UsageError, match="at least one text"):
        encoder.encode_context([], seed=3)


def test_a_context_can_be_kept_and_is_its_models_own(
    encoders: dict[Version, PublishedCdeEncoder], tmp_path: Path
) -> None:
    encoder = encoders["v1"]
    made = encoder.encode_context(TEXTS)
    made.save(tmp_path)
    read = encoder.with_context(CorpusContext.load(tmp_path))
    assert read.spec == encoder.spec
    assert read.context is not None
    assert read.context.texts == tuple(TEXTS)
    np.testing.assert_array_equal(read.encode_queries(QUERIES), encoder.encode_queries(QUERIES))
    with pytest.raises(MismatchError, match="made by another model"):
        encoders["v2"].with_context(made)
    with pytest.raises(MismatchError, match="made by another model"):
        encoders["v2"].drift(made, TEXTS)
    assert encoder.drift(made, TEXTS) < 1e-3
    assert encoder.drift(made, ["a", "a b", "b"]) > encoder.drift(made, TEXTS[:4])


def test_an_index_is_read_in_the_context_that_it_was_built_with(
    version: Version, encoders: dict[Version, PublishedCdeEncoder]
) -> None:
    encoder = encoders[version]
    restored = restore_encoder(encoder.spec, device="cpu", context=encoder.context)
    assert restored.spec == encoder.spec
    np.testing.assert_array_equal(restored.encode_queries(QUERIES), encoder.encode_queries(QUERIES))
    with pytest.raises(MismatchError, match=r"is the one that built this index.*no corpus context: give the context"):
        restore_encoder(encoder.spec, device="cpu")
    other = encoder.encode_context(QUERIES, seed=1)
    with pytest.raises(MismatchError, match=f"and here is the corpus context {other.context_id[:12]}"):
        restore_encoder(encoder.spec, device="cpu", context=other)


def test_an_index_of_the_null_context_is_read_without_any(tmp_path: Path) -> None:
    encoder = opened(save_published(tmp_path / "null", "v2", null=True)).with_context(None)
    again = restore_encoder(encoder.spec, device="cpu")
    assert again.spec == encoder.spec
    np.testing.assert_array_equal(again.encode_queries(QUERIES), encoder.encode_queries(QUERIES))
    other = save_published(tmp_path / "other", "v2")  # has no null vector: another model, and no fault of the index
    with pytest.raises(MismatchError, match="is not the one that built this index"):
        restore_encoder(encoder.spec, model=str(other), device="cpu")


@given(count=st.integers(1, 12), size=st.integers(1, 30), seed=st.integers(0, 9))
def test_filling_a_context(count: int, size: int, seed: int) -> None:
    vectors = np.arange(2 * count, dtype=np.float32).reshape(count, 2)
    filled = fill_context(vectors, size, seed)
    assert (filled.shape, filled.dtype) == ((size, 2), vectors.dtype)
    np.testing.assert_array_equal(filled, fill_context(vectors, size, seed))
    taken = [int((filled == row).all(axis=1).sum()) for row in vectors]
    assert max(taken) - min(taken) <= 1  # none twice while another is not there at all
    if count == size:
        np.testing.assert_array_equal(filled, vectors)


def test_nothing_fills_no_context() -> None:
    with pytest.raises(UsageError, match="at least one text"):
        fill_context(np.empty((0, 2), dtype=np.float32), 2)


def test_without_a_context_there_are_no_vectors(version: Version, folders: dict[Version, Path]) -> None:
    encoder = load_encoder(str(folders[version]), EncoderOptions(device="cpu"))
    assert isinstance(encoder, PublishedCdeEncoder)
    with pytest.raises(UsageError, match=rf"pass {CONTEXT} texts of the corpus to its encoder's encode_context"):
        encoder.encode_queries(QUERIES)
    with pytest.raises(UsageError, match="no vectors without a corpus context"):
        encoder.encode_documents([])
    with pytest.raises(ConfigError, match=r"no vector that stands for no context.*of any texts, and keep it"):
        encoder.with_context(None)


def test_a_checkpoint_with_a_null_vector_has_a_null_context(tmp_path: Path) -> None:
    encoder = opened(save_published(tmp_path, "v2", null=True)).with_context(None)
    assert encoder.spec.context == "null"
    oracle = Oracle(tmp_path, "v2")
    null = oracle.tensors["second_stage_model.sequence_dropout_null_embedding"].expand(CONTEXT, -1)
    wanted = oracle.vector(null, f"search_query: {QUERIES[0]}").numpy()
    np.testing.assert_allclose(encoder.encode_queries(QUERIES[:1])[0], wanted, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("switch", "how"),
    [
        ({"residual": True}, {"residual": True}),
        ({"pool_prompt": False}, {}),
        ({"token_types": "training"}, {"types": (0, 1)}),
    ],
)
def test_switches(
    version: Version,
    switch: dict[str, Any],
    how: dict[str, Any],
    tmp_path: Path,
    encoders: dict[Version, PublishedCdeEncoder],
) -> None:
    plain = encoders[version]
    encoder = opened(variant(plain, tmp_path, ctxindex=switch))
    oracle = Oracle(tmp_path, version)
    text = "search_query: which law: that of Delaware?"
    if "pool_prompt" in switch:
        ids = oracle.ids(text).tolist()
        how = {"skip": ids.index(oracle.ids(":").tolist()[1]) + 1}
        assert encoder.spec.pooling == "no-prompt"
    wanted = oracle.vector(oracle.context(TEXTS), text, **how).numpy()
    vector = encoder.encode_queries([text.removeprefix("search_query: ")])[0]
    np.testing.assert_allclose(vector, wanted, atol=TOLERANCE)
    assert encoder.spec.files != plain.spec.files
    same = np.abs(plain.encode_queries([text.removeprefix("search_query: ")])[0] - vector).max() < 1e-4
    assert same == (version == "v2" and "token_types" in switch)  # ModernBERT has none


def test_what_a_text_is_without_its_prefix(tmp_path: Path) -> None:
    folder = save_published(tmp_path, "v2", ctxindex={"pool_prompt": False})
    encoder = opened(folder)
    (row,) = encoder.query_rows(["law: exile"])
    read = encoder.tokenizer._tokenizer.decode(row.ids[row.places[0].start : row.places[0].end].tolist())
    assert read.strip().startswith("law: exile")  # up to the first colon, and no further
    (folder / "config_sentence_transformers.json").write_text('{"prompts": {"query": "find "}}')
    bare = opened(folder)
    (row,) = bare.query_rows(["exile"])
    assert (row.places[0].start, row.places[0].end) == (0, row.length)  # no colon: nothing is left out
    (row,) = bare.query_rows(["law: exile"])
    assert row.places[0].start > 1  # the authors' rule takes the first colon for the prefix's, wherever it stands


def test_chunks_of_a_document_can_be_read_together(
    version: Version, folders: dict[Version, Path], encoders: dict[Version, PublishedCdeEncoder]
) -> None:
    encoder = opened(folders[version], windows="window")
    assert (encoder.spec.windows, encoder.spec.join, encoder.spec.pooling) == ("window", "sep", "strict")
    (encoded,) = encoder.encode_documents([chunked("a", TEXTS[:2])])
    assert isinstance(encoded, EncodedDocument)
    oracle = Oracle(folders[version], version)
    (row,) = encoder.document_rows(chunked("a", TEXTS[:2]))

    class Ids(Oracle):
        def ids(self, text: str) -> torch.Tensor:
            return torch.from_numpy(row.ids.astype(np.int64))

    context = oracle.context(TEXTS)
    joint = Ids(folders[version], version)
    wanted = [joint.vector(context, "", span=(place.start, place.end)).numpy() for place in row.places]
    np.testing.assert_allclose(encoded.vectors, wanted, atol=TOLERANCE)
    np.testing.assert_array_equal(encoder.encode_queries(QUERIES), encoders[version].encode_queries(QUERIES))
    # All of a document of one chunk is what the chunk alone is.
    inclusive = opened(folders[version], windows="window", pooling="inclusive")
    (one,) = inclusive.encode_documents([chunked("a", TEXTS[:1])])
    (alone,) = encoders[version].encode_documents([chunked("a", TEXTS[:1])])
    assert isinstance(one, EncodedDocument)
    assert isinstance(alone, EncodedDocument)
    np.testing.assert_allclose(one.vectors, alone.vectors, atol=TOLERANCE)
    again = load_encoder(encoder.spec.model, EncoderOptions.of(encoder.spec, "cpu"))
    assert (again.spec.windows, again.spec.files) == ("window", encoder.spec.files)


def test_what_is_longer_than_the_model_reads(
    version: Version,
    folders: dict[Version, Path],
    encoders: dict[Version, PublishedCdeEncoder],
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Cut(Oracle):
        def ids(self, text: str) -> torch.Tensor:
            ids = super().ids(text)
            return torch.cat([ids[:63], ids[-1:]]) if len(ids) > 64 else ids

    encoder, oracle = encoders[version], Cut(folders[version], version)
    long = " ".join(TEXTS * 3)
    texts = [long, *TEXTS[1:]]
    context = oracle.context(texts)
    np.testing.assert_allclose(encoder.encode_context(texts).vectors, context.numpy(), atol=TOLERANCE)
    wanted = oracle.vector(oracle.context(TEXTS), f"search_query: {long}").numpy()
    np.testing.assert_allclose(encoder.encode_queries([long])[0], wanted, atol=TOLERANCE)
    assert "was cut" in caplog.text
    rows = encoder.document_rows(chunked("a", [long, *TEXTS]))  # a chunk loses nothing: it has several rows
    assert sum(place.chunk == 0 for row in rows for place in row.places) > 1
    assert max(row.length for row in rows) <= 64


def test_what_goes_with_windows_needs_them(folders: dict[Version, Path]) -> None:
    with pytest.raises(ConfigError, match="--anchor goes with other --windows, not with chunk"):
        load_encoder(str(folders["v1"]), EncoderOptions(device="cpu", anchor=4))
    with pytest.raises(ModelError, match=r"a published CDE model, .* --method late cannot use it"):
        load_encoder(str(folders["v1"]), EncoderOptions(device="cpu", method="late"))
    with pytest.raises(ModelError, match="reads no corpus context: --method cde needs"):
        load_encoder("minilm", EncoderOptions(device="cpu", method="cde"))


def test_in_half_precision_little_changes(version: Version, encoders: dict[Version, PublishedCdeEncoder]) -> None:
    encoder = encoders[version]
    half = load_encoder(encoder.spec.model, EncoderOptions(device="cpu", dtype="bfloat16"))
    assert isinstance(half, PublishedCdeEncoder)
    half = half.with_context(encoder.encode_context(TEXTS))
    cosines = (half.encode_queries(QUERIES) * encoder.encode_queries(QUERIES)).sum(axis=1)
    assert cosines.min() > 0.999
