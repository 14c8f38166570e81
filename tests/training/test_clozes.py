"""Words of a sentence as a query: from one sentence of the chunk, in its order, and the same for the same draw."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxindex.training.clozes import cloze, folded, sharing
from ctxindex.training.pairs.text import content_words

TEXT = (
    "The steam engine of the mill was repaired in autumn. Workers from three villages carried heavy iron plates "
    "across the frozen river. It stopped."
)


@given(st.integers(0, 2**32))
def test_words_of_one_sentence_in_their_order(seed: int) -> None:
    query = cloze(TEXT, np.random.default_rng(seed))
    assert query is not None
    words = query.words.split()
    assert 3 <= len(words) <= 9
    homes = [sentence for sentence in TEXT.split(". ") if set(words) <= set(content_words(sentence))]
    assert len(homes) == 1
    places = [homes[0].index(word) for word in words]
    assert places == sorted(places)
    assert query.sentence == folded(homes[0].strip() + ("" if homes[0].endswith(".") else "."))
    assert query == cloze(TEXT, np.random.default_rng(seed))


def test_all_sentences_are_asked_for() -> None:
    found = {cloze(TEXT, np.random.default_rng(seed)) for seed in range(60)}
    assert any("engine" in str(query) for query in found)
    assert any("river" in str(query) for query in found)


@pytest.mark.parametrize("text", ["", "Yes.", "It was so. And then?"])
def test_nothing_where_nothing_can_be_asked(text: str) -> None:
    assert cloze(text, np.random.default_rng(0)) is None


def test_texts_that_hold_a_sentence_are_found_however_they_are_set() -> None:
    texts = [
        TEXT,
        "First.\nthe steam  engine of the MILL was repaired in autumn. Then:",
        "The steam engine of the mill.",
    ]
    sentences = [folded("The steam engine of the mill was repaired in autumn."), folded("It stopped."), "nowhere"]
    assert sharing(sentences, texts) == [[0, 1], [0], []]
    assert sharing([], texts) == []
