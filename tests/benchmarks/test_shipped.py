"""What is told of the shipped model, its readings and its seeds; and that the files say what the pages say."""

from __future__ import annotations

import re

import numpy as np
import pytest

from benchmarks import results, shipped, view
from benchmarks.rows import CUT, read_rows
from ctxindex.encoding import EncoderOptions, load_encoder, open_checkpoint, packaged
from tests.conftest import REPOSITORY
from tests.evaluation.builders import people

SEEDS = {"sets": ["contracts"], "tables": {"with titles": [{"name": "mean", "ndcg@10": {"contracts": 0.7}}]}}


def test_views_are_mixed_as_an_encoder_mixes_them() -> None:
    corpus = people()
    _, contextual = view.chunks_of(corpus, 1, blend=0.0)
    _, alone = view.chunks_of(corpus, 1, blend=view.NEARLY, isolated="title")
    _, expected = view.chunks_of(corpus, 1, blend=0.6, isolated="title")
    np.testing.assert_allclose(view.mixed(contextual, alone, 0.6), expected, atol=2e-3)
    assert np.abs(contextual - alone).max() > 0.05


def test_the_table_of_readings_has_the_mean_of_the_sets() -> None:
    found = {view.key("title", 0.4): {"a": 0.2, "b": 0.4}, view.key(view.NOTHING, 0.0): {"a": 0.1}}
    lines = view.table(found).splitlines()
    assert lines[0] == "| b | chunk | title | opening |"
    assert lines[2] == "| 0 | 10.0 | 10.0 | 10.0 |"
    assert next(line for line in lines if line.startswith("| 0.4 |")) == "| 0.4 |  | 30.0 |  |"


def test_the_section_tells_what_was_measured_and_no_more() -> None:
    assert shipped.section(None, None) == []
    bare = "\n".join(shipped.section(SEEDS, None))
    assert "in these is the model that ships" in bare
    assert "| b |" not in bare
    views = {"seed 1": {"a": 0.3, "b": 0.4}, "seed 0": {"a": 0.5, "b": 0.5}}
    views |= {view.key("opening", 0.6): {"a": 0.4, "b": 0.6}}
    again = {"seed": 0, "steps": 12, "sha256": ["1f", "1f"]}
    whole = "\n".join(shipped.section(SEEDS, views, again))
    assert "(the first 12 steps of seed 0, made 2 times, do)" in whole
    assert "made 2 times" not in "".join(shipped.section(SEEDS, views, {**again, "sha256": ["1f", "2e"]}))
    unfinished = {**views, "seed 2": {"a": 0.1}}
    assert shipped.section(SEEDS, unfinished) == shipped.section(SEEDS, None)
    assert "in these (50.0 for seed 0, 35.0 for seed 1) is" in whole
    assert "| 0.6 |  |  | 50.0 |" in whole


def test_the_page_is_what_the_files_say() -> None:
    page = results.render(read_rows(results.MEASURED / results.ROWS))
    assert results.PAGE.read_text(encoding="utf-8") == page, "render it anew: see benchmarks/results.py"


def test_the_table_of_the_readme_is_of_the_same_rows() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    rows = {(row.name, row.dataset): row.ndcg for row in read_rows(results.MEASURED / results.ROWS)[CUT]}
    names = {
        "BM25": "bm25",
        "MiniLM, each chunk alone": "independent",
        "MiniLM, title before each chunk": "independent+title",
        "minilm-insent": results.SHIPPED,
    }
    for told, name in names.items():
        (line,) = re.findall(rf"^\| \**{re.escape(told)}\** \| (.*) \|$", readme, re.MULTILINE)
        figures = [cell.strip(" *") for cell in line.split("|")]
        assert figures == [f"{100 * rows[name, one]:.1f}" for one in results.SETS], told


def test_the_package_holds_the_model_that_was_measured() -> None:
    files = sum(file.stat().st_size for file in packaged.FOLDER.iterdir())
    assert files < 15e6
    measured = read_rows(results.MEASURED / results.ROWS)[CUT]
    digests = {row.digest for row in measured if row.name == results.SHIPPED}
    assert digests == {load_encoder("minilm-insent").spec.digest}


def test_sentence_transformers_reads_a_long_text_as_we_do() -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    encoder = load_encoder("minilm-insent", EncoderOptions(method="independent", device="cpu", dtype="float32"))
    text = next((REPOSITORY / "recipes" / "data" / "contracts").glob("*.txt")).read_text(encoding="utf-8")
    long = " ".join(text.split()[:320])
    assert 256 < encoder.tokenizer.count([long])[0] < 510
    folder = open_checkpoint("minilm-insent").folder
    theirs = sentence_transformers.SentenceTransformer(str(folder), device="cpu").encode([long])
    np.testing.assert_allclose(encoder.encode_queries([long]), theirs / np.linalg.norm(theirs), atol=1e-5)
