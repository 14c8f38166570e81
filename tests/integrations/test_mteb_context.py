"""CDE models through mteb: the corpus context that they read in, and that it is part of their name."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctxindex.encoding import EncoderOptions, load_encoder
from ctxindex.encoding.cde.corpus_context import sample_context
from ctxindex.encoding.cde.encoder import CdeEncoder
from ctxindex.encoding.cde.folder import make_native_cde
from ctxindex.encoding.cde.settings import NativeCde
from ctxindex.encoding.encoder import Encoder
from ctxindex.encoding.local import LocalEncoder
from ctxindex.errors import UsageError
from ctxindex.integrations.mteb import MtebSearch
from tests.encoding.cde.tiny_cde import save_published
from tests.encoding.stand_in import chunked
from tests.encoding.tiny import save_sentence_transformer
from tests.integrations.in_memory import corpus_of
from tests.integrations.test_mteb import NAPOLEON, QUESTIONS, Found, encoded, expected_scores, require_same, search


@pytest.fixture(scope="module")
def cde(tmp_path_factory: pytest.TempPathFactory) -> CdeEncoder:
    folder = tmp_path_factory.mktemp("cde")
    settings = NativeCde(context_size=2, context_bias_init=1.0)
    made = make_native_cde(str(save_sentence_transformer(folder / "base")), folder / "model", settings)
    encoder = load_encoder(str(made), EncoderOptions(device="cpu", dtype="float32"))
    assert isinstance(encoder, CdeEncoder)
    return encoder


def test_a_cde_model_reads_a_corpus_in_the_context_of_a_sample_of_it(cde: CdeEncoder) -> None:
    texts = {f"d{number}": text for number, text in enumerate([*NAPOLEON, "The law of Delaware governs it.", ""])}
    named = {name: chunked(name, [text]) for name, text in texts.items() if text}
    drawn = [one.text for one in sample_context(named.values(), 2)]
    reading = cde.with_context(cde.encode_context(drawn))

    def expected(encoder: Encoder) -> dict[str, dict[str, float]]:
        read = {name: encoded(encoder, one) for name, one in named.items()}
        return {
            asked: {name: expected_scores(encoder, words, one)[0] for name, one in read.items()}
            for asked, words in QUESTIONS.items()
        }

    def found(model: MtebSearch) -> Found:
        return search(model, corpus_of(texts), QUESTIONS)

    model = MtebSearch(cde)
    require_same(found(model), expected(reading))
    for _ in range(2):  # another corpus has another context, and the first again its own
        search(model, corpus_of({"x": "Ships in the harbour.", "y": "Two old piers."}), QUESTIONS)
        require_same(found(model), expected(reading))
    require_same(found(MtebSearch(cde, context="null")), expected(cde))
    require_same(found(MtebSearch(cde.with_context(None))), expected(cde))  # given by hand, so it is kept
    require_same(found(MtebSearch(cde.with_context(None), context="corpus")), expected(reading))
    require_same(found(MtebSearch(reading)), expected(reading))
    by_hand = cde.with_context(cde.encode_context(["Something else altogether."]))
    require_same(found(MtebSearch(by_hand)), expected(by_hand))
    require_same(found(MtebSearch(by_hand, context="corpus")), expected(reading))


def test_a_corpus_without_text_has_no_context_and_finds_nothing(tmp_path: Path) -> None:
    published = load_encoder(str(save_published(tmp_path, "v1")), EncoderOptions(device="cpu"))
    model = MtebSearch(published)
    assert search(model, corpus_of({"x": "", "y": " "}), QUESTIONS) == {"q0": {}, "q1": {}}
    found = search(model, corpus_of({"x": NAPOLEON[0], "y": NAPOLEON[1]}), QUESTIONS)
    assert all(own.keys() == {"x", "y"} for own in found.values())


def test_the_context_is_part_of_what_mteb_knows_a_model_by(cde: CdeEncoder, minilm_late: LocalEncoder) -> None:
    by_hand = cde.with_context(cde.encode_context(["Something else altogether."]))
    models = [MtebSearch(cde), MtebSearch(cde, context="null"), MtebSearch(by_hand)]
    meta = [model.mteb_model_meta for model in models]
    ending = by_hand.spec.context[:12]
    assert [each.name for each in meta] == [f"ctxindex/model-cde{one}" for one in ("", "-null", f"-{ending}")]
    assert len({each.revision for each in meta}) == 3
    assert MtebSearch(cde, context="corpus").mteb_model_meta.revision == meta[0].revision
    assert MtebSearch(by_hand, context="corpus").mteb_model_meta.revision == meta[0].revision
    by_hand_null = MtebSearch(cde.with_context(None)).mteb_model_meta
    assert (by_hand_null.name, by_hand_null.revision) == (meta[1].name, meta[1].revision)
    with pytest.raises(UsageError, match="reads no corpus context"):
        MtebSearch(minilm_late, context="null")
    with pytest.raises(UsageError, match="context elsewhere is none of corpus, null"):
        MtebSearch(cde, context="elsewhere")
