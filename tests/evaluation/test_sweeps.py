"""Sweeps: what is asked for is understood, and sub-corpora differ in nothing but the wrong documents."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxindex.errors import ConfigError
from ctxindex.evaluation import Configuration, Corpus
from ctxindex.evaluation.results import SweepPoint
from ctxindex.evaluation.sweeps import Sweep, chunk_sizes, family_of, parse_sweep, sub_corpora
from tests.evaluation.builders import Question, corpus_of


def numbered(documents: int, answers: list[set[int]], level: str = "chunk") -> Corpus:
    """A corpus of so many documents of two chunks, with the documents that answer each query."""
    texts = {f"d{number}": [f"{number} first", f"{number} second"] for number in range(documents)}
    questions: list[Question] = [
        (f"question {query}", [(f"d{number}", (number + query) % 2) for number in sorted(them)])
        for query, them in enumerate(answers)
    ]
    return corpus_of(texts, questions, level=level)


@st.composite
def corpora(draw: st.DrawFn) -> tuple[Corpus, Sweep]:
    documents = draw(st.integers(3, 14))
    answers = st.sets(st.integers(0, documents - 1), min_size=1, max_size=3)
    corpus = numbered(
        documents, draw(st.lists(answers, min_size=1, max_size=6)), draw(st.sampled_from(["chunk", "document"]))
    )
    sizes = draw(st.lists(st.integers(3, 16), min_size=1, max_size=4))
    return corpus, Sweep("corpus-size", tuple(sizes))


def asked(corpus: Corpus) -> list[str]:
    return [query.query_id for query in corpus.queries]


@settings(deadline=None)
@given(given=corpora())
def test_sub_corpora_are_nested_and_hold_all_answers(given: tuple[Corpus, Sweep]) -> None:
    corpus, sweep = given
    sizes = sorted({min(size, len(corpus.documents)) for size in sweep.values})
    seeds = (0,) if sizes == [len(corpus.documents)] else (0, 1)  # the whole is the same with every seed
    found = sub_corpora(corpus, sweep, 2)
    assert [point for point, _ in found] == [SweepPoint("corpus-size", size, seed) for seed in seeds for size in sizes]
    for seed in seeds:
        parts = [part for point, part in found if point.seed == seed]
        names = [set(part.document_names) for part in parts]
        assert [len(one) for one in names] == sizes
        assert all(small < large for small, large in pairwise(names))
        for part in parts:
            assert asked(part) == asked(parts[0])
            assert all(query.doc_ids <= set(part.document_names) for query in part.queries)
            assert [len(one) for one in part.gold] == [len(query.doc_ids) for query in part.queries]
        expected = [query.query_id for query in corpus.queries if query.doc_ids <= names[0]]
        assert asked(parts[0]) == expected != [], "all that the smallest one answers is asked"


def test_a_seed_draws_the_same_and_others_draw_others() -> None:
    corpus = numbered(40, [{number} for number in range(20)])
    sweep = Sweep("corpus-size", (5, 20))
    first, again = sub_corpora(corpus, sweep, 3), sub_corpora(corpus, sweep, 3)
    assert [(point, part.document_names, asked(part)) for point, part in first] == [
        (point, part.document_names, asked(part)) for point, part in again
    ]
    assert len({part.document_names for point, part in first if point.value == 5}) == 3
    assert [part.document_names for _, part in sub_corpora(corpus, sweep, 1)] == [
        part.document_names for _, part in first[:2]
    ]


def test_a_set_whose_queries_are_about_few_of_its_documents_still_has_queries() -> None:
    corpus = numbered(400, [{17}, {200, 201}, {399}], "document")
    for _, part in sub_corpora(corpus, Sweep("corpus-size", (4, 100)), 5):
        assert asked(part) == ["q0", "q1", "q2"]
    for _, part in sub_corpora(corpus, Sweep("corpus-size", (2, 100)), 5):
        assert asked(part) in (["q0", "q2"], ["q1"])


def test_the_place_that_queries_leave_goes_to_any_documents() -> None:
    corpus = numbered(50, [{0}])
    drawn = {name for _, part in sub_corpora(corpus, Sweep("corpus-size", (10,)), 20) for name in part.document_names}
    assert len(drawn) > 40


def test_queries_that_nothing_in_the_set_answers_are_not_asked() -> None:
    corpus = numbered(6, [{0}, {1}])
    unanswered = Corpus(corpus.name, corpus.level, corpus.documents, corpus.queries, (corpus.gold[0], {}), {})
    for _, part in sub_corpora(unanswered, Sweep("corpus-size", (2, 6)), 3):
        assert asked(part) == ["q0"]


@pytest.mark.parametrize("size", [0, 1, 2])
def test_sizes_that_hold_no_answer_are_refused(size: int) -> None:
    with pytest.raises(ConfigError, match=f"set: {size} documents answer no query: give larger sizes"):
        sub_corpora(numbered(9, [{0, 1, 2}, {3, 4, 5, 6}]), Sweep("corpus-size", (size, 9)), 1)


@pytest.mark.parametrize(
    ("documents", "sizes"), [(80, [10, 20, 40, 80]), (9, [2, 4, 9]), (3, [2, 3]), (1, [1]), (20, [2, 5, 10, 20])]
)
def test_by_default_an_eighth_a_quarter_a_half_and_all(documents: int, sizes: list[int]) -> None:
    found = sub_corpora(numbered(documents, [{0}]), Sweep("corpus-size"), 1)
    assert [int(point.value) for point, _ in found] == sizes


@pytest.mark.parametrize(
    ("text", "sweep"),
    [
        ("chunk-size", Sweep("chunk-size")),
        ("chunk-size=64", Sweep("chunk-size", (64,))),
        ("corpus-size", Sweep("corpus-size")),
        ("corpus-size=100,20,100", Sweep("corpus-size", (20, 100))),
    ],
)
def test_sweeps_are_understood(text: str, sweep: Sweep) -> None:
    assert parse_sweep(text) == sweep


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("size=3", "--sweep size=3 is none of chunk-size, corpus-size, lambda"),
        ("", "--sweep  is none of"),
        ("chunk-size=", "--sweep chunk-size=: sizes are whole numbers, as in --sweep chunk-size=64,128,256"),
        ("chunk-size=64,", "sizes are whole numbers"),
        ("corpus-size=0.5", "sizes are whole numbers, as in --sweep corpus-size="),
        ("corpus-size=-3", "sizes are whole numbers"),
        ("lambda", "--sweep lambda needs a folder of models"),
        ("lambda=", "--sweep lambda needs a folder of models"),
        ("lambda=/no/such/folder", "--sweep lambda=/no/such/folder: there is no such folder"),
    ],
)
def test_what_is_no_sweep_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_sweep(text)


def test_chunk_sizes_are_those_given_or_those_of_the_unit() -> None:
    assert chunk_sizes(Sweep("chunk-size", (7, 9)), "tokens") == (7, 9)
    assert chunk_sizes(Sweep("chunk-size"), "tokens") == (32, 64, 128, 256)
    assert chunk_sizes(Sweep("chunk-size"), "chars") == (125, 250, 500, 1000)


def test_a_family_is_found_by_the_names_of_its_folders(tmp_path: Path) -> None:
    names = ["lambda-1", "lambda-.5", "Lambda_0.25", "lambda=0", "lambda10", "lambda-1e-3", "base", "x-lambda-2"]
    for name in names:
        (tmp_path / name).mkdir()
    (tmp_path / "lambda-0.7").write_text("no folder")
    sweep = parse_sweep(f"lambda={tmp_path}")
    assert sweep.name == "lambda"
    assert [(value, Path(folder).name) for value, folder in sweep.models] == [
        (0, "lambda=0"),
        (0.001, "lambda-1e-3"),
        (0.25, "Lambda_0.25"),
        (0.5, "lambda-.5"),
        (1, "lambda-1"),
        (10, "lambda10"),
    ]
    members = family_of(sweep, Configuration("late", None, {"anchor": 8, "model": "other"}))
    assert [point for point, _ in members] == [SweepPoint("lambda", value) for value, _ in sweep.models]
    assert members[2][1] == Configuration("late", None, {"anchor": 8, "model": str(tmp_path / "Lambda_0.25")})


def test_a_folder_without_a_family_and_one_with_two_of_a_kind_are_refused(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    with pytest.raises(ConfigError, match=r"no folder in it is called lambda-0\.1 or the like"):
        parse_sweep(f"lambda={tmp_path}")
    for name in ("lambda-0.5", "lambda_0.5"):
        (tmp_path / name).mkdir()
    with pytest.raises(ConfigError, match=r"two folders in it are called lambda-0\.5"):
        parse_sweep(f"lambda={tmp_path}")
