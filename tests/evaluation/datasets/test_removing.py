"""What is cut out of documents: all places of theirs move with it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ctxindex.evaluation.datasets.removing import Cuts, _joined, _shortened
from ctxindex.types import Document, Section


@given(
    text=st.text(min_size=1, max_size=60),
    places=st.sets(st.integers(0, 60), max_size=10),
    place=st.integers(0, 60),
)
def test_places_move_with_what_is_cut(text: str, places: set[int], place: int) -> None:
    ends = sorted(min(one, len(text)) for one in places)
    spans = [(start, end) for start, end in zip(ends[::2], ends[1::2], strict=False) if start < end]
    place = min(place, len(text))
    cuts = Cuts(spans)
    left = "".join(letter for number, letter in enumerate(text) if not any(s <= number < e for s, e in spans))
    assert cuts.apply(text) == left
    before = [number for number in range(place) if not any(s <= number < e for s, e in spans)]
    assert cuts.move(place) == len(before)


@given(
    spans=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 10)), max_size=4),
    starts=st.lists(st.integers(0, 40), max_size=4),
)
def test_sections_and_pages_move_with_the_text(spans: list[tuple[int, int]], starts: list[int]) -> None:
    text = "".join(chr(0x100 + number) for number in range(41))
    stretches = _joined((start, min(41, start + length)) for start, length in spans)
    sections = tuple(Section(start, ("x",)) for start in sorted(starts))
    cuts = Cuts(stretches)
    document = _shortened(Document("d", text, sections=sections, pages=(0, 20)), cuts)
    for before, after in zip(sections, document.sections, strict=True):
        rest = [character for character in text[before.start :] if character in document.text]
        assert document.text[after.start :] == "".join(rest)
    assert document.pages[0] == 0
