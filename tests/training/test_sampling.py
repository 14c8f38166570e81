"""What a step reads: the windows of inference, the answers in them, and what is known to answer as well."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxindex.encoding import EncoderOptions, load_encoder
from ctxindex.encoding.local import LocalEncoder
from ctxindex.encoding.rows import Row
from ctxindex.errors import ConfigError, UsageError
from ctxindex.training import sampling
from ctxindex.training.batches import Draw
from ctxindex.training.sampling import Batch, Limits, Question, Sampler, Shares, TrainingDocument
from tests.encoding.stand_in import chunked
from tests.encoding.tiny import save_sentence_transformer
from tests.training.toys import document, documents

SHAPES: dict[str, dict[str, Any]] = {
    "blend": {"blend": 0.4, "anchor": 8, "isolated": "title", "anchor_title": True},
    "mean": {"owner": "mean"},
    "tokens": {"join": "raw", "windows": "token-window"},
    "independent": {"method": "independent"},
}


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LocalEncoder]:
    folder = save_sentence_transformer(tmp_path_factory.mktemp("models") / "bert")
    return {name: load(folder, **options) for name, options in SHAPES.items()}


def load(folder: Path, **options: Any) -> LocalEncoder:
    chosen: dict[str, Any] = {"method": "late", "max_tokens": 48, "device": "cpu", **options}
    return load_encoder(str(folder), EncoderOptions(**chosen))


def long_ones(count: int = 3) -> list[TrainingDocument]:
    """Several windows each; the last has a chunk that is longer than a window."""
    found = [document(name, 9, words=1 + number) for number, name in enumerate(("Napoleon", "Delaware"))]
    return [*found, document("Corsica", 4, words=9)][:count]


def sampled(
    encoder: LocalEncoder,
    sources: list[TrainingDocument],
    step: int = 0,
    limits: Limits | None = None,
    shares: Shares | None = None,
) -> Batch:
    sampler = Sampler({"a": sources}, encoder, limits or Limits(2, 3), shares)
    return sampler.batch(Draw(step, "a", tuple(range(len(sources))), 11))


def key(row: Row) -> bytes:
    return row.ids.tobytes()


def spans(row: Row) -> list[tuple[int, int]]:
    return [(place.start, place.end) for place in row.places]


@pytest.mark.parametrize("shape", SHAPES)
@settings(deadline=None, max_examples=15)
@given(step=st.integers(0, 500), windows=st.integers(1, 4), queries=st.integers(1, 4))
def test_what_is_read_is_what_inference_reads(
    encoders: dict[str, LocalEncoder], shape: str, step: int, windows: int, queries: int
) -> None:
    encoder, sources = encoders[shape], long_ones()
    batch = sampled(encoder, sources, step, Limits(windows, queries))
    for number, (source, count) in enumerate(zip(sources, batch.counts, strict=True)):
        rows = encoder.document_rows(source.source)
        whole = [row for row in rows if not row.isolated]
        known = {key(row): row for row in whole}
        read = batch.contextual[number].rows
        assert all(key(row) in known for row in read)
        # Which chunk became which: the places of a row keep their order and their tokens.
        old: dict[int, int] = {}
        for row in read:
            at = {(place.start, place.end): place.chunk for place in known[key(row)].places}
            for place in row.places:
                assert old.setdefault(place.chunk, at[place.start, place.end]) == at[place.start, place.end]
        assert sorted(old) == list(range(count))
        assert [old[new] for new in range(count)] == sorted(old.values()), "in the order of the document"
        # A chunk is there with all of its windows, and with every token of it.
        places = Counter(place.chunk for row in whole for place in row.places)
        taken = Counter(old[place.chunk] for row in read for place in row.places)
        assert all(taken[chunk] == places[chunk] for chunk in old.values())
        most = max(windows, *(sum(1 for row in whole if chunk in {p.chunk for p in row.places}) for chunk in places))
        assert len(read) <= most
        asked = [query for query, document in enumerate(batch.documents) if document == number]
        assert 1 <= len(asked) <= queries
        for query in asked:
            golds = {old[gold] for gold in batch.golds[query]}
            assert golds
            assert any(
                golds <= set(question.golds) and key(batch.queries[query].rows[0]) == ids
                for question, ids in zip(source.questions, query_keys(encoder, source), strict=True)
            )
        if batch.isolated:
            alone = {key(row) for row in rows if row.isolated and row.places[0].chunk in old.values()}
            assert {key(row) for row in batch.isolated[number].rows} == alone
            assert batch.isolated[number].items == count


def query_keys(encoder: LocalEncoder, source: TrainingDocument) -> list[bytes]:
    return [key(row) for row in encoder.query_rows([question.text for question in source.questions])]


def test_a_draw_gives_the_same_batch_whenever_it_is_asked_for(encoders: dict[str, LocalEncoder]) -> None:
    shares = Shares(titles=0.5, contextual=0.3, isolated=0.3)
    one = Sampler({"a": long_ones()}, encoders["blend"], Limits(2, 3), shares)
    other = Sampler({"a": long_ones()}, encoders["blend"], Limits(2, 3), shares)
    draws = [Draw(step, "a", (0, 1, 2), 3) for step in range(12)]
    forwards = [shape_of(one.batch(draw)) for draw in draws]
    assert forwards == [shape_of(other.batch(draw)) for draw in reversed(draws)][::-1]
    assert len(set(forwards)) > 6
    again = [shape_of(one.batch(replace(draw, seed=4))) for draw in draws]
    assert again != forwards


def shape_of(batch: Batch) -> tuple[Any, ...]:
    readings = (batch.contextual, batch.isolated, batch.queries)
    rows = tuple(tuple((key(row), tuple(spans(row))) for one in part for row in one.rows) for part in readings)
    return rows, batch.counts, batch.documents, batch.golds, batch.positives, batch.blend, batch.named


def test_titles_and_views_are_withheld_in_their_shares(encoders: dict[str, LocalEncoder]) -> None:
    encoder, steps = encoders["blend"], 400
    sampler = Sampler({"a": documents(2)}, encoder, Limits(1, 1), Shares(titles=0.3, contextual=0.2, isolated=0.1))
    title = set(encoder.tokenizer.ids(["about Napoleon"])[0].tolist())
    untitled = contextual = isolated = 0
    for step in range(steps):
        batch = sampler.batch(Draw(step, "a", (0, 1), 1))
        row = (*batch.contextual, *batch.isolated)[0].rows[0]
        told = title <= set(row.ids.tolist())
        untitled += not told
        contextual += not batch.contextual
        isolated += not batch.isolated
        assert batch.blend == (1.0 if not batch.contextual else 0.0 if not batch.isolated else 0.4)
        assert batch.named is (bool(batch.contextual) or told)
        assert batch.tokens == sum(one.tokens for one in (*batch.contextual, *batch.isolated))
    for found, share in ((untitled, 0.3), (contextual, 0.2), (isolated, 0.1)):
        assert abs(found / steps - share) < 0.07  # three standard deviations


@pytest.mark.parametrize(
    ("isolated", "titles", "contextual", "titled", "named"),
    [
        ("title", 0.0, 1.0, True, True),
        ("title", 1.0, 1.0, True, False),
        ("title", 0.0, 1.0, False, False),
        ("chunk", 0.0, 1.0, True, False),
        ("chunk", 1.0, 0.0, True, True),
    ],
)
def test_chunks_read_alone_and_untitled_have_no_name(
    encoders: dict[str, LocalEncoder], isolated: Any, titles: float, contextual: float, titled: bool, named: bool
) -> None:
    folder = Path(encoders["blend"].spec.model)
    encoder = load(folder, blend=0.4, isolated=isolated)
    sources = [*documents(2), document("exile", titled=titled)]
    assert sampled(encoder, sources, shares=Shares(titles=titles, contextual=contextual)).named is named


def test_without_a_blend_there_is_one_view(encoders: dict[str, LocalEncoder]) -> None:
    for shape in ("mean", "tokens", "independent"):
        for step in range(5):
            batch = sampled(encoders[shape], documents(2), step, shares=Shares(titles=0.5, contextual=0.5))
            assert batch.contextual
            assert not batch.isolated
            assert batch.named


def asking(name: str, *questions: tuple[str, tuple[int, ...]]) -> TrainingDocument:
    texts = [f"this is {name}", "of the law", "the year 1804", "early by either party"]
    return TrainingDocument(chunked(name, texts), tuple(Question(text, golds) for text, golds in questions))


def test_the_same_words_asked_elsewhere_have_answers_that_are_no_negatives(encoders: dict[str, LocalEncoder]) -> None:
    sources = [
        asking("a", ("When?", (2,)), ("Who?", (0,)), ("who?", (1, 0))),
        asking("b", ("WHEN?", (3, 1)), ("which law", (1,))),
    ]
    batch = sampled(encoders["mean"], sources, limits=Limits(9, 9))
    assert batch.counts == (4, 4)
    assert batch.documents == (0, 0, 0, 1, 1)
    assert batch.golds == ((2,), (0,), (1, 0), (3, 1), (1,))
    assert batch.positives == ((0, 5), (0, 7), (1, 1), (3, 2))


def test_no_chunk_that_holds_the_sentence_of_a_cloze_is_its_negative(encoders: dict[str, LocalEncoder]) -> None:
    clause = "the law which governs this agreement is that of Delaware."
    texts = {"a": [f"Of the first. {clause}", "Here is nothing."], "b": ["Of the other. " + clause.upper(), clause]}
    sources = [TrainingDocument(chunked(name, own), (Question(f"{name}?", (0,)),)) for name, own in texts.items()]
    seen = set()
    for step in range(6):
        batch = sampled(encoders["mean"], sources, step, Limits(9, 1, clozes=1))
        for query in range(2, len(batch.queries)):
            document, (chunk,) = batch.documents[query], batch.golds[query]
            own = 2 * document + chunk
            assert {other for one, other in batch.positives if one == query} == {0, 2, 3} - {own}
            seen.add(own)
    assert seen == {0, 2, 3}


def test_words_that_were_not_drawn_are_known_all_the_same(encoders: dict[str, LocalEncoder]) -> None:
    sources = [asking("a", ("When?", (2,))), asking("b", *[("when?", (1,))], *[(f"{n}?", (0,)) for n in range(5)])]
    batches = [sampled(encoders["mean"], sources, step, Limits(9, 1)) for step in range(12)]
    assert {len(batch.queries) for batch in batches} == {2}
    assert all((0, 5) in batch.positives for batch in batches)
    assert len({key(batch.queries[1].rows[0]) for batch in batches}) > 2


def test_every_question_and_every_window_is_drawn_in_time(encoders: dict[str, LocalEncoder]) -> None:
    encoder, source = encoders["blend"], long_ones(1)
    whole = {key(row) for row in encoder.document_rows(source[0].source) if not row.isolated}
    assert len(whole) > 3
    seen: set[bytes] = set()
    asked: set[bytes] = set()
    for step in range(40):
        batch = sampled(encoder, source, step, Limits(1, 1))
        seen |= {key(row) for row in batch.contextual[0].rows}
        asked |= {key(one.rows[0]) for one in batch.queries}
    assert seen >= {key(row) for row in encoder.document_rows(source[0].source) if not row.isolated}
    assert asked == set(query_keys(encoder, source[0]))


def test_rows_are_kept_up_to_a_number_of_tokens(
    encoders: dict[str, LocalEncoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, sources = encoders["mean"], documents(4)
    made: list[str] = []
    rows_of = encoder.document_rows

    def counting(source: Any) -> Any:
        made.append(source.document.doc_id)
        return rows_of(source)

    monkeypatch.setattr(encoder, "document_rows", counting)
    lengths = [sum(row.length for row in rows_of(one.source)) for one in sources]
    monkeypatch.setattr(sampling, "KEPT_TOKENS", lengths[1] + lengths[2])
    sampler = Sampler({"a": sources}, encoder, Limits(2, 3))
    for number in (0, 1, 0, 1, 2, 1, 3, 1, 0):
        sampler.batch(Draw(0, "a", (number,), 1))
    names = [one.source.document.doc_id for one in sources]
    assert made == [names[number] for number in (0, 1, 2, 3, 0)], "the one that was asked for longest ago goes"


def test_a_document_that_cannot_be_read_is_told(encoders: dict[str, LocalEncoder]) -> None:
    bad = TrainingDocument(chunked("bad.txt", ["fine", "\u200b"]), (Question("fine?", (0,)),))
    with pytest.raises(UsageError, match=r"bad\.txt cannot be trained on: a chunk has no tokens"):
        sampled(encoders["mean"], [bad])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"titles": 1.1}, "0 to 1"),
        ({"titles": float("nan")}, "0 to 1"),
        ({"isolated": -0.1}, "0 to 1"),
        ({"isolated": 0.6, "contextual": 0.5}, "0.5 of the steps without the contextual view and 0.6 without the iso"),
    ],
)
def test_shares_out_of_range_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Shares(**values)
