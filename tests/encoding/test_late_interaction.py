"""Late interaction on a stand-in whose vectors tell the token, and on tiny real models: order, raggedness, refusals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxindex.encoding import EncoderOptions, load_encoder
from ctxindex.encoding.checkpoint import open_checkpoint
from ctxindex.encoding.encoder import restore_encoder
from ctxindex.encoding.job import DocumentJob
from ctxindex.encoding.late_interaction import LateInteractionEncoder
from ctxindex.encoding.token_pooling import pool_tokens
from ctxindex.errors import ConfigError, MismatchError, ModelError
from ctxindex.metering import Meter
from ctxindex.types import EncodedDocument, FailedDocument
from tests.encoding.stand_in import IdBackbone, chunked
from tests.encoding.test_colbert import PYLATE, pylate
from tests.encoding.tiny import added, byte_level, fast

if TYPE_CHECKING:
    from ctxindex.encoding.tokenizer import Ids
    from ctxindex.types import FloatArray

WORDS = ["napoleon", "was", "born", "in", "corsica", "the", "agreement", "law", "1804", ",", "."]
CHUNKS = st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=60).map(" ".join), min_size=1, max_size=10)


class AngleBackbone(IdBackbone):
    """Implements `TokenBackbone`: a token's vector is the unit vector at an angle of its id, with no context."""

    broken = False

    def token_vectors(self, rows: Sequence[Ids], attended: Sequence[int]) -> list[FloatArray]:
        self.lengths = [len(row) for row in rows]
        return [angles(row) * (np.float32(np.nan) if self.broken else np.float32(1)) for row in rows]


def angles(ids: Ids) -> FloatArray:
    return np.stack([np.cos(ids / 1000), np.sin(ids / 1000)], axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pylate(tmp_path_factory.mktemp("model") / "model", PYLATE)


def stand_in(folder: Path, **options: Any) -> tuple[LateInteractionEncoder, AngleBackbone]:
    asked = EncoderOptions(batch_tokens=256, **options)
    spec = load_encoder(str(folder), asked).spec
    backbone = AngleBackbone()
    return LateInteractionEncoder(open_checkpoint(str(folder)), spec, asked, Meter(), backbone), backbone


def vectors_of(encoder: LateInteractionEncoder, texts: Sequence[str]) -> list[FloatArray]:
    (result,) = encoder.encode_documents([chunked("a", texts)])
    assert isinstance(result, EncodedDocument), result
    return result.chunk_vectors()


@pytest.mark.parametrize("max_tokens", [16, 24, 64, 128])
@settings(deadline=None, max_examples=20)
@given(chunks=CHUNKS)
def test_every_token_of_every_chunk_once_and_in_order(folder: Path, max_tokens: int, chunks: list[str]) -> None:
    encoder, backbone = stand_in(folder, max_tokens=max_tokens)
    found = vectors_of(encoder, chunks)
    assert max(backbone.lengths) <= max_tokens
    for vectors, ids in zip(found, encoder.tokenizer.ids(chunks), strict=True):
        np.testing.assert_array_equal(vectors, angles(ids))


@settings(deadline=None, max_examples=20)
@given(chunks=CHUNKS, factor=st.integers(1, 5))
def test_pooling_stays_inside_a_chunk(folder: Path, chunks: list[str], factor: int) -> None:
    encoder, _ = stand_in(folder, max_tokens=32, pool_factor=factor)
    found = vectors_of(encoder, chunks)
    lengths = [max(1, len(ids) // factor) for ids in encoder.tokenizer.ids(chunks)]
    assert [len(vectors) for vectors in found] == lengths
    for vectors in found:
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_the_skiplist_is_off_unless_asked_for(folder: Path) -> None:
    texts = ["napoleon , born .", ", .", "in corsica"]
    kept, _ = stand_in(folder)
    skipping, _ = stand_in(folder, skiplist="model")
    ids = kept.tokenizer.ids(texts)
    assert [len(vectors) for vectors in vectors_of(kept, texts)] == [len(each) for each in ids]
    skipped = list(skipping._layout.skiplist)
    expected = [int((~np.isin(each, skipped)).sum()) or len(each) for each in ids]
    assert [len(vectors) for vectors in vectors_of(skipping, texts)] == expected
    assert expected[1] == len(ids[1]), "a chunk of nothing else keeps them"


def test_a_piece_of_a_chunk_that_is_all_skipped_is_left_out(folder: Path) -> None:
    """What is kept for want of anything else is a chunk, wherever it is cut into pieces."""
    encoder, backbone = stand_in(folder, max_tokens=16, skiplist="model")
    texts = ["napoleon " + ", " * 40 + "law", ", " * 20]
    ids = encoder.tokenizer.ids(texts)
    words, commas = vectors_of(encoder, texts)
    assert max(backbone.lengths) <= 16
    np.testing.assert_array_equal(words, angles(ids[0][[0, -1]]))
    np.testing.assert_array_equal(commas, angles(ids[1]))
    rows = encoder.document_rows(chunked("a", texts))
    placed = [(place.chunk, place.end - place.start) for row in rows for place in row.places]
    assert all(row.places for row in rows)
    assert [sum(length for one, length in placed if one == chunk) for chunk in (0, 1)] == [2, 20]


MIXED: dict[str, dict[str, Any]] = {
    "alone": {},
    "titled": {"isolated": "title", "anchor_title": True, "anchor": 4},
    "behind the opening": {"isolated": "opening"},
    "as it stands": {"join": "raw", "isolated": "title"},
    "windows of tokens": {"join": "raw", "windows": "token-window"},
    "owned by the first window": {"owner": "first", "isolated": "opening"},
    "skipping": {"skiplist": "model", "isolated": "opening"},
}


@pytest.mark.parametrize("case", MIXED)
@settings(deadline=None, max_examples=15)
@given(chunks=CHUNKS, max_tokens=st.sampled_from([20, 32, 128]), title=st.sampled_from([None, "Early Exile"]))
def test_a_blend_pairs_every_token_with_itself(
    folder: Path, case: str, chunks: list[str], max_tokens: int, title: str | None
) -> None:
    """These vectors tell the token and know no context, so both of a pair are the same, and so is their mixture."""
    encoder, backbone = stand_in(folder, max_tokens=max_tokens, blend=0.4, **MIXED[case])
    source = chunked("a", chunks)
    (result,) = encoder.encode_documents([replace(source, document=replace(source.document, title=title))])
    assert isinstance(result, EncodedDocument), result
    assert max(backbone.lengths) <= max_tokens
    for vectors, ids in zip(result.chunk_vectors(), encoder.tokenizer.ids(chunks), strict=True):
        kept = ids[~np.isin(ids, encoder._skipped)]
        np.testing.assert_allclose(vectors, angles(kept if len(kept) else ids), atol=1e-6)


@pytest.mark.parametrize("join", ["sep", "raw"])
def test_a_chunk_alone_is_read_as_the_tokens_that_it_has_in_its_window(tmp_path: Path, join: Any) -> None:
    """Here the prefix ends in a blank, which the tokenizer glues to the word behind: that is another token then."""
    folder = pylate(tmp_path / "model", {**PYLATE, "document_prefix": "search document: "})
    added(fast(byte_level()), "[Q] ", "[D] ").save_pretrained(folder)
    texts = ["Napoleon was born", "in Corsica", "Napoleon"]
    mixed, plain = stand_in(folder, join=join, blend=0.5)[0], stand_in(folder, join=join)[0]
    in_window = vectors_of(plain, texts)
    alone = [vectors_of(plain, [text])[0] for text in texts]
    assert any(
        one.shape != other.shape or not np.array_equal(one, other) for one, other in zip(in_window, alone, strict=True)
    )
    for vectors, expected in zip(vectors_of(mixed, texts), in_window, strict=True):
        np.testing.assert_allclose(vectors, expected, atol=1e-6)


def test_tokens_are_blended_before_they_are_clustered(folder: Path) -> None:
    texts = [" ".join(WORDS * 2), "in corsica", " ".join(WORDS[::-1])]
    whole, *pooled = (
        LateInteractionEncoder(open_checkpoint(str(folder)), load_encoder(str(folder), asked).spec, asked, Meter())
        for asked in (EncoderOptions(blend=0.5, pool_factor=factor) for factor in (1, 2, 3))
    )
    blended = vectors_of(whole, texts)
    for factor, encoder in enumerate(pooled, 2):
        for vectors, expected in zip(vectors_of(encoder, texts), blended, strict=True):
            assert len(vectors) == len(expected) // factor or len(expected) < 2 * factor
            np.testing.assert_allclose(vectors, pool_tokens(expected, factor), atol=1e-6)


def test_literal_markers_and_separators_are_plain_text(folder: Path) -> None:
    encoder, _ = stand_in(folder)
    found = vectors_of(encoder, ["sign [SEP] here", "[CLS] and [MASK]"])
    assert len(found) == 2
    special = angles(np.array([encoder.tokenizer.sep_id, encoder.tokenizer.cls_id or 0], dtype=np.int32))
    assert not any((vectors[:, None] == special[None]).all(axis=2).any() for vectors in found)


def test_vectors_that_are_no_numbers_fail_the_document(folder: Path) -> None:
    encoder, backbone = stand_in(folder)
    backbone.broken = True
    (failed,) = encoder.encode_documents([chunked("a", ["napoleon"])])
    assert isinstance(failed, FailedDocument)
    assert "not a usable vector" in failed.reason
    with pytest.raises(ModelError, match="not a usable vector"):
        encoder.encode_queries(["napoleon"])


def test_a_chunk_beyond_the_limit_of_databases_fails_its_document(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ctxindex.encoding.late_interaction.MULTIVECTOR_NUMBERS", 2 * 40)
    encoder, _ = stand_in(folder)
    big, small = chunked("big", ["law " * 40]), chunked("small", ["law " * 39])
    results = {type(result): result for result in encoder.encode_documents([big, small])}
    failed = results[FailedDocument]
    assert isinstance(failed, FailedDocument)
    assert failed.doc_id == "big"
    assert "--pool-factor" in failed.reason
    assert EncodedDocument in results


def test_queries_are_filled_up_and_cut(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    encoder, _ = stand_in(folder)
    short, long = encoder.encode_queries(["napoleon", "law " * 50])
    assert len(short) == len(long) == encoder.spec.query_length == 24
    assert "was cut to the 21" in caplog.text
    assert encoder.encode_queries([]) == []


def test_vectors_do_not_depend_on_what_shares_a_batch(folder: Path) -> None:
    documents = [chunked(f"d{n}", [" ".join(WORDS[: 1 + (n + c) % 9] * (1 + c)) for c in range(4)]) for n in range(6)]
    together = load_encoder(str(folder), EncoderOptions(batch_tokens=4096))
    single = load_encoder(str(folder), EncoderOptions(batch_tokens=1))
    expected = {
        result.document.doc_id: result.chunk_vectors()
        for result in single.encode_documents(documents)
        if isinstance(result, EncodedDocument)
    }
    for result in together.encode_documents(documents[::-1]):
        assert isinstance(result, EncodedDocument)
        for ours, theirs in zip(result.chunk_vectors(), expected[result.document.doc_id], strict=True):
            np.testing.assert_allclose(ours, theirs, atol=2e-6)


def test_methods_and_models_must_fit(folder: Path) -> None:
    assert load_encoder(str(folder)).spec.method == "late-interaction"
    with pytest.raises(ModelError, match="is a late-interaction model"):
        load_encoder(str(folder), EncoderOptions(method="late"))
    with pytest.raises(ModelError, match="gives one vector a text"):
        load_encoder("minilm", EncoderOptions(method="late-interaction"))
    for options in (EncoderOptions(pool_factor=2), EncoderOptions(skiplist="model")):
        with pytest.raises(ConfigError, match="are for late interaction"):
            load_encoder("minilm", options)
    with pytest.raises(ConfigError, match="--pooling goes with --method late, late-interaction or cde, not with indep"):
        load_encoder("minilm", EncoderOptions(pooling="authors-compat"))
    with pytest.raises(ConfigError, match="--pool-factor 0"):
        load_encoder(str(folder), EncoderOptions(pool_factor=0))
    with pytest.raises(ConfigError, match="--dims 3"):
        load_encoder(str(folder), EncoderOptions(dims=3))


def test_the_spec_restores_the_encoder(folder: Path, tmp_path: Path) -> None:
    spec = load_encoder(str(folder), EncoderOptions(pool_factor=2, skiplist="model", pooling="authors-compat")).spec
    assert (spec.multivector, spec.storage, spec.dim, spec.query_length) == (True, "float16", 16, 24)
    assert restore_encoder(spec).spec == spec
    other = pylate(tmp_path / "other", {**PYLATE, "attend_to_expansion_tokens": True})
    with pytest.raises(MismatchError, match="query_expansion"):
        restore_encoder(replace(spec, digest=load_encoder(str(other)).spec.digest), model=str(other))


@pytest.mark.parametrize("owner", ["centre", "first"])
def test_windows_may_begin_with_title_and_head_and_keep_no_vectors_of_them(folder: Path, owner: Any) -> None:
    texts = [" ".join(WORDS[(number + place) % 11] for place in range(12)) for number in range(30)]
    source = chunked("a", texts)
    titled = replace(source, document=replace(source.document, title="Early Exile"))
    encoder, backbone = stand_in(folder, max_tokens=64, anchor=10, anchor_title=True, owner=owner)
    plain, _ = stand_in(folder, max_tokens=64)
    (result,) = encoder.encode_documents([titled])
    assert isinstance(result, EncodedDocument)
    assert max(backbone.lengths) <= 64
    frame = encoder._frame("")
    (job,) = encoder._jobs([titled], frame)
    assert isinstance(job, DocumentJob)
    title, head = encoder.tokenizer.ids(["Early Exile", texts[0]])
    behind = len(frame.opening)
    for number, row in enumerate(job.rows):
        shown = [*title, frame.sep_id, *(head[:10] if number else ())]
        assert row.ids[behind : behind + len(shown)].tolist() == shown
    assert len(job.rows) > 2
    for mine, others in zip(result.chunk_vectors(), vectors_of(plain, texts), strict=True):
        np.testing.assert_array_equal(mine, others)  # without context, an anchor changes nothing


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"owner": "first", "anchor": 8},
        {"windows": "token-window"},
        {"windows": "token-window", "window_overlap": 0},
    ],
)
@settings(deadline=None, max_examples=20)
@given(chunks=CHUNKS)
def test_the_text_as_it_stands_gives_every_token_of_every_chunk_once(
    folder: Path, options: dict[str, Any], chunks: list[str]
) -> None:
    """The words of these chunks are tokens of their own, so that they are the same alone and in the text."""
    encoder, backbone = stand_in(folder, max_tokens=32, join="raw", **options)
    found = vectors_of(encoder, chunks)
    assert max(backbone.lengths) <= 32
    for vectors, ids in zip(found, encoder.tokenizer.ids(chunks), strict=True):
        np.testing.assert_array_equal(vectors, angles(ids))


@pytest.mark.parametrize("windows", ["window", "token-window"])
def test_inclusive_keeps_the_ends_of_a_long_document_alone(folder: Path, windows: Any) -> None:
    texts = [" ".join(WORDS[:9])] * 12
    encoder, backbone = stand_in(folder, max_tokens=32, join="raw", windows=windows, pooling="inclusive")
    first, *inner, last = vectors_of(encoder, texts)
    assert len(backbone.lengths) > 2
    words = encoder.tokenizer.ids(texts[:1])[0]
    frame = encoder._frame("")
    np.testing.assert_array_equal(first, angles(np.concatenate([frame.opening, words])))
    np.testing.assert_array_equal(last, angles(np.concatenate([words, frame.separator])))
    assert all(len(vectors) == len(words) for vectors in inner)
