"""What a step of contextual training reads: pairs, the windows of their golds, and a context of their clusters."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxindex.encoding import EncoderOptions, load_encoder
from ctxindex.encoding.cde_folder import make_native_cde
from ctxindex.encoding.local import LocalEncoder
from ctxindex.training.batches import Draw
from ctxindex.training.contextual.context import ContextDropout
from ctxindex.training.contextual.options import ContextualOptions
from ctxindex.training.contextual.pairs import GoldTexts, Pair, PairSampler, Sources, pairs_of
from ctxindex.training.sampling import Question, TrainingDocument
from ctxindex.types import Chunk, ChunkedDocument, Document
from tests.encoding.tiny import save_sentence_transformer
from tests.training.sets import PLACES, text_of

PLAIN = ContextualOptions(context_size=(2, 5), dropout=ContextDropout(0.0, 0.0))


def document(place: str) -> TrainingDocument:
    """Three chunks; a question each to the first and the last, and one that the first two answer."""
    text, start, chunks = text_of(place), 0, []
    for ordinal, own in enumerate(text.split("\n\n")):
        begin = text.index(own, start)
        start = begin + len(own)
        chunks.append(Chunk(ordinal, begin, start, own))
    source = ChunkedDocument(Document(place, text, place), tuple(chunks))
    golds = {"who founded": (0,), "when is the market in": (2,), "what of ships in": (0, 1)}
    return TrainingDocument(source, tuple(Question(f"{words} {place}", own) for words, own in golds.items()))


SOURCES: Sources = {"a": [document(one) for one in PLACES[:4]], "b": [document(one) for one in PLACES[4:7]]}
PAIRS = pairs_of(SOURCES)
TEXTS = GoldTexts.of(SOURCES, PAIRS)
LABELS = np.array([(one.source == "b") * 2 + one.document % 2 for one in PAIRS], dtype=np.int64)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> LocalEncoder:
    folder = tmp_path_factory.mktemp("model")
    save_sentence_transformer(folder / "bert")
    make_native_cde(str(folder / "bert"), folder / "cde")
    return load_encoder(str(folder / "cde"), EncoderOptions(device="cpu", anchor=4, blend=0.5))


def sampler(encoder: LocalEncoder, options: ContextualOptions = PLAIN, windows: int = 1, **more: Any) -> PairSampler:
    chosen: dict[str, Any] = {"remove": lambda numbers: np.zeros((len(numbers),) * 2, dtype=np.bool_), **more}
    return PairSampler(SOURCES, PAIRS, encoder, options, windows=windows, labels=LABELS, texts=TEXTS, **chosen)


def test_every_question_is_a_pair_of_each_document() -> None:
    assert len(PAIRS) == 21
    assert PAIRS[2] == Pair("a", 0, Question("what of ships in Arles", (0, 1)))
    assert len(TEXTS.texts) == 14  # two of the three questions have the same first gold
    assert TEXTS.of_pair[0] == TEXTS.of_pair[2] != TEXTS.of_pair[1]


def test_a_document_is_read_once_with_the_golds_of_its_pairs(encoder: LocalEncoder) -> None:
    batch = sampler(encoder).batch(Draw(0, "a", (0, 1, 2, 4), 0))
    assert (batch.counts, batch.documents, batch.golds) == ((2, 1), (0, 0, 0, 1), (0, 1, 0, 0))
    assert batch.answers == ((0,), (1,), (0,), (0,))
    assert batch.positives.tolist() == [0, 1, 0, 2]
    assert batch.blend == 0.5
    assert len(batch.groups) == 3
    for text, count in zip(batch.contextual, batch.counts, strict=True):
        assert text.reading is not None
        assert text.reading.items == count == len({place.chunk for row in text.reading.rows for place in row.places})
    # Pairs 0 and 2 have one gold, and the question of 2 is answered by it, too.
    assert batch.removed.tolist()[0] == [True, False, True, False]
    assert batch.removed.tolist()[1] == [False, True, False, False]


def test_siblings_are_read_where_they_are_told_apart(encoder: LocalEncoder) -> None:
    batch = sampler(encoder, replace(PLAIN, insent=0.5)).batch(Draw(0, "a", (2, 4), 0))
    assert batch.counts == (3, 3)
    assert batch.answers == ((0, 1), (2,))
    assert batch.golds == (0, 2)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 500), st.sets(st.integers(0, 11), min_size=1, max_size=6))
def test_a_context_is_of_the_clusters_of_its_batch(encoder: LocalEncoder, step: int, chosen: set[int]) -> None:
    numbers = tuple(sorted(chosen))
    batch = sampler(encoder).batch(Draw(step, "a", numbers, 7))
    drawn = [text.number for text in batch.context]
    allowed = {int(TEXTS.of_pair[pair]) for pair in range(len(PAIRS)) if LABELS[pair] in LABELS[list(numbers)]}
    assert len(set(drawn)) == len(drawn)
    assert set(drawn) <= allowed
    assert min(2, len(allowed)) <= len(drawn) <= 5
    again = sampler(encoder).batch(Draw(step, "a", numbers, 7))
    assert [text.number for text in again.context] == drawn


def test_dropout_takes_slots_of_the_step_and_whole_contexts_of_texts(encoder: LocalEncoder) -> None:
    options = replace(PLAIN, context_size=(6, 6), dropout=ContextDropout(0.5, 0.5))
    steps = [sampler(encoder, options).batch(Draw(step, "a", (0, 3, 6, 9), 0)) for step in range(40)]
    slots = [text.bare for step in steps for text in step.context]
    texts = [text.bare for step in steps for group in (step.queries, step.contextual) for text in group]
    assert 0.35 < np.mean(slots) < 0.65
    assert 0.35 < np.mean(texts) < 0.65
    for step in steps:  # what is read of one document is read in one context
        assert [text.bare for text in step.contextual] == [text.bare for text in step.isolated]
    none = [text.bare for group in sampler(encoder).batch(Draw(0, "a", (0, 3), 0)).groups for text in group]
    assert not any(none)


def test_a_filter_and_what_is_known_leave_out_together(encoder: LocalEncoder) -> None:
    asked: list[list[int]] = []

    def remove(numbers: Any) -> Any:
        asked.append(list(numbers))
        return np.triu(np.ones((len(numbers),) * 2, dtype=np.bool_), 1)

    batch = sampler(encoder, remove=remove).batch(Draw(0, "a", (0, 1, 4), 0))
    assert asked == [[0, 1, 4]]
    assert batch.removed.tolist() == [[True, True, True], [False, True, True], [False, False, True]]
