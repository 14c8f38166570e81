"""What a step of contextual training reads: pairs, the windows of their golds, and a context of their clusters."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxindex.encoding import EncoderOptions, load_encoder
from ctxindex.encoding.cde.folder import make_native_cde
from ctxindex.encoding.local import LocalEncoder
from ctxindex.training.batches import Draw
from ctxindex.training.contextual.context import ContextDropout
from ctxindex.training.contextual.objective import _left_out
from ctxindex.training.contextual.options import ContextualOptions
from ctxindex.training.contextual.pairs import GoldTexts, Pair, PairSampler, Sources, Text, pairs_of
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


def nothing(numbers: Any, _: Any) -> Any:
    """A filter that leaves nothing out."""
    return np.zeros((len(numbers),) * 2, dtype=np.bool_)


def sampler(encoder: LocalEncoder, options: ContextualOptions = PLAIN, windows: int = 1, **more: Any) -> PairSampler:
    chosen: dict[str, Any] = {"remove": nothing, **more}
    return PairSampler(SOURCES, PAIRS, encoder, options, windows=windows, labels=LABELS, texts=TEXTS, **chosen)


def step_where(encoder: LocalEncoder, numbers: tuple[int, ...], places: tuple[int, ...]) -> int:
    """A step that draws these golds of its pairs."""
    found: list[tuple[int, ...]] = []

    def remove(asked: Any, drawn: Any) -> Any:
        found.append(tuple(drawn.tolist()))
        return nothing(asked, drawn)

    watched = sampler(encoder, remove=remove)
    for step in range(40):
        watched.batch(Draw(step, "a", numbers, 0))
        if found[-1] == places:
            return step
    raise AssertionError(f"{places} were never drawn, but {set(found)}")


def test_every_question_is_a_pair_of_each_document() -> None:
    assert len(PAIRS) == 21
    assert PAIRS[2] == Pair("a", 0, Question("what of ships in Arles", (0, 1)))
    assert len(TEXTS.texts) == 21  # three chunks of each document, which answer something
    golds = [TEXTS.golds.of_pair(pair).tolist() for pair in range(3)]
    assert golds == [[0], [1], [0, 2]]
    assert [TEXTS.texts[number] for number in golds[2]] == text_of("Arles").split("\n\n")[:2]


def test_a_document_is_read_once_with_the_golds_of_its_pairs(encoder: LocalEncoder) -> None:
    step = step_where(encoder, (0, 1, 2, 4), (0, 0, 0, 0))
    batch = sampler(encoder).batch(Draw(step, "a", (0, 1, 2, 4), 0))
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


def test_all_golds_of_a_question_are_its_positive_by_turns(encoder: LocalEncoder) -> None:
    numbers = (0, 2)  # who founded Arles: the first chunk; what of its ships: the first or the second
    first, second = (
        sampler(encoder).batch(Draw(step_where(encoder, numbers, places), "a", numbers, 0))
        for places in ((0, 0), (0, 1))
    )
    assert (first.counts, first.golds, first.answers) == ((1,), (0, 0), ((0,), (0,)))
    assert (second.counts, second.golds, second.answers) == ((2,), (0, 1), ((0,), (0, 1)))
    # What the first question is answered by is no negative of the second, whose own positive it is not.
    assert second.removed.tolist() == [[True, False], [True, True]]
    drawn = [sampler(encoder).batch(Draw(step, "a", (2,), 0)).contextual[0].reading for step in range(60)]
    lengths = [sum(one.lengths) for one in drawn if one is not None]
    assert 15 < lengths.count(min(lengths)) < 45


def test_a_step_is_the_same_whenever_it_is_asked_for(encoder: LocalEncoder) -> None:
    one, again = (sampler(encoder).batch(Draw(9, "a", (2, 5, 8), 3)) for _ in range(2))
    assert one.context == again.context
    for read, other in zip(one.contextual, again.contextual, strict=True):
        assert read.reading is not None
        assert other.reading is not None
        assert [row.places for row in read.reading.rows] == [row.places for row in other.reading.rows]


def test_siblings_are_read_where_they_are_told_apart(encoder: LocalEncoder) -> None:
    step = step_where(encoder, (2, 4), (0, 0))
    batch = sampler(encoder, replace(PLAIN, insent=0.5)).batch(Draw(step, "a", (2, 4), 0))
    assert batch.counts == (3, 3)
    assert batch.answers == ((0, 1), (2,))
    assert batch.golds == (0, 2)


def test_siblings_that_answer_the_same_words_elsewhere_are_known(encoder: LocalEncoder) -> None:
    def asked(place: str, *golds: int) -> TrainingDocument:
        return TrainingDocument(document(place).source, (Question("What OF ships?", golds), Question(place, (0,))))

    sources: Sources = {"a": [asked("Arles", 1), asked("Bergen", 1, 2)]}
    pairs = pairs_of(sources)
    chosen = PairSampler(
        sources,
        pairs,
        encoder,
        replace(PLAIN, insent=0.5),
        windows=1,
        labels=np.zeros(len(pairs), dtype=np.int64),
        texts=GoldTexts.of(sources, pairs),
        remove=nothing,
    )
    batch = chosen.batch(Draw(0, "a", (0, 3), 0))  # of ships, of Arles; and Bergen by its name
    assert batch.counts == (3, 3)
    assert batch.answers == ((1,), (0,))
    assert batch.elsewhere == ((0, 4), (0, 5))
    assert {(0, 4), (0, 5)} <= set(_left_out(batch))


def test_what_answers_the_same_words_in_another_line_of_a_set_is_known(encoder: LocalEncoder) -> None:
    """Two answers in one document, in two lines that name no query: two questions with a gold each."""
    lines = Question("What of ships?", (0,)), Question("what OF ships?", (1,)), Question("when is the market?", (2,))
    sources: Sources = {"a": [TrainingDocument(document("Arles").source, lines)]}
    pairs = pairs_of(sources)
    chosen = PairSampler(
        sources,
        pairs,
        encoder,
        replace(PLAIN, insent=0.5),
        windows=1,
        labels=np.zeros(len(pairs), dtype=np.int64),
        texts=GoldTexts.of(sources, pairs),
        remove=nothing,
    )
    batch = chosen.batch(Draw(0, "a", (0, 2), 0))
    assert (batch.counts, batch.answers) == ((3,), ((0,), (2,)))
    assert batch.elsewhere == ((0, 1),), "its own gold is none of them, and neither is what answers other words"
    assert (0, 1) in _left_out(batch)
    assert chosen.batch(Draw(0, "a", (0, 1), 0)).elsewhere == ((0, 1), (1, 0))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 500), st.sets(st.integers(0, 11), min_size=1, max_size=6))
def test_a_context_is_of_the_clusters_of_its_batch(encoder: LocalEncoder, step: int, chosen: set[int]) -> None:
    numbers = tuple(sorted(chosen))
    batch = sampler(encoder).batch(Draw(step, "a", numbers, 7))
    drawn = [text.number for text in batch.context]
    inside = [pair for pair in range(len(PAIRS)) if LABELS[pair] in LABELS[list(numbers)]]
    allowed = {one for pair in inside for one in TEXTS.golds.of_pair(pair).tolist()}
    assert len(set(drawn)) == len(drawn)
    assert set(drawn) <= allowed
    assert min(2, len(allowed)) <= len(drawn) <= 5
    again = sampler(encoder).batch(Draw(step, "a", numbers, 7))
    assert [text.number for text in again.context] == drawn


def test_dropout_takes_slots_and_the_whole_context_of_a_step(encoder: LocalEncoder) -> None:
    options = replace(PLAIN, context_size=(6, 6), dropout=ContextDropout(0.5, 0.3))
    steps = [sampler(encoder, options).batch(Draw(step, "a", (0, 3, 6, 9), 0)) for step in range(80)]
    without = [step for step in steps if step.queries[0].bare]
    assert 0.15 < len(without) / len(steps) < 0.45
    for step in steps:  # as an index is: all of it in one context, or none of it in any
        assert len({text.bare for group in step.groups for text in group}) == 1
    assert all(step.context == (Text(bare=True),) for step in without)
    slots = [text.bare for step in steps if step not in without for text in step.context]
    assert 0.35 < np.mean(slots) < 0.65
    none = [text.bare for group in sampler(encoder).batch(Draw(0, "a", (0, 3), 0)).groups for text in group]
    assert not any(none)


def test_a_filter_and_what_is_known_leave_out_together(encoder: LocalEncoder) -> None:
    asked: list[list[int]] = []

    def remove(numbers: Any, places: Any) -> Any:
        asked.extend([numbers.tolist(), places.tolist()])
        return np.triu(np.ones((len(numbers),) * 2, dtype=np.bool_), 1)

    batch = sampler(encoder, remove=remove).batch(Draw(0, "a", (0, 1, 4), 0))
    assert asked == [[0, 1, 4], [0, 0, 0]]
    assert batch.removed.tolist() == [[True, True, True], [False, True, True], [False, False, True]]
