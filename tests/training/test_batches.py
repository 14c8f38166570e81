"""Batches of documents: one source each, shares kept, every document in turn, the same for the same seed."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxindex.errors import ConfigError
from ctxindex.training.batches import draw_batches

SOURCES = {"contracts": 11, "leaflets": 7, "trials": 30}


@settings(deadline=None, max_examples=60)
@given(counts=st.lists(st.integers(5, 23), min_size=1, max_size=4), size=st.integers(1, 5), seed=st.integers(0, 99))
def test_every_document_comes_in_turn_and_none_twice_in_a_batch(counts: list[int], size: int, seed: int) -> None:
    sources = {str(place): count for place, count in enumerate(counts)}
    seen = {source: Counter[int]() for source in sources}
    for draw in islice(draw_batches(sources, size, seed), 150):
        assert len(set(draw.documents)) == len(draw.documents) == size
        seen[draw.source].update(draw.documents)
    for source, count in sources.items():
        assert set(seen[source]) <= set(range(count))
        times = [seen[source][document] for document in range(count)]
        assert max(times) - min(times) <= 1


@settings(deadline=None, max_examples=60)
@given(shares=st.lists(st.floats(0.01, 10), min_size=1, max_size=6))
def test_shares_are_kept_at_any_moment(shares: list[float]) -> None:
    by_name = {str(place): share for place, share in enumerate(shares)}
    given_ = dict.fromkeys(by_name, 0)
    for draw in islice(draw_batches(dict.fromkeys(by_name, 4), 2, 0, by_name), 200):
        given_[draw.source] += 1
        for source, share in by_name.items():
            assert abs(given_[source] - (draw.step + 1) * share / sum(shares)) < 1 + 1e-9


def test_without_shares_sources_count_by_their_documents() -> None:
    found = Counter(draw.source for draw in islice(draw_batches(SOURCES, 3, 0), 480))
    assert found == {"contracts": 110, "leaflets": 70, "trials": 300}


def test_the_seed_decides_all() -> None:
    once, again = (list(islice(draw_batches(SOURCES, 4, 7), 40)) for _ in range(2))
    assert once == again
    assert once != list(islice(draw_batches(SOURCES, 4, 8), 40))
    assert list(islice(draw_batches(SOURCES, 4, 7), 25, 40)) == once[25:]
    assert [draw.step for draw in once] == list(range(40))
    first = [draw.generator().integers(2**60) for draw in once]
    assert first == [draw.generator().integers(2**60) for draw in again]
    assert len(set(first)) == 40


@pytest.mark.parametrize(
    ("sources", "size", "shares", "message"),
    [
        ({}, 1, None, "shares for none, and the sources are none"),
        ({"a": 3}, 4, None, "a has 3 documents to train on, fewer than a batch of 4"),
        ({"a": 3}, 0, None, "batches of 0 documents"),
        ({"a": 3, "b": 3}, 2, {"a": 1.0}, "shares for a, and the sources are a, b"),
        ({"a": 3, "b": 3}, 2, {"a": 1.0, "b": 0.0}, "the share of b, 0.0, must be more than 0"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    sources: dict[str, int], size: int, shares: dict[str, float] | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        draw_batches(sources, size, 0, shares)
