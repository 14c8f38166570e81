"""`ctxindex eval` as a user has it: what it prints, and what it exits with."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest

from tests.cli.command_line import answer, run
from tests.integrations.fake_endpoint import running

PEOPLE = {
    "napoleon": "Napoleon Bonaparte was born in Corsica. He became emperor in 1804. He died on Saint Helena.",
    "curie": "Marie Curie was born in Warsaw. She won two Nobel prizes. She discovered radium with her husband.",
    "darwin": "Charles Darwin sailed on the Beagle. He wrote about the origin of species. He lived at Down House.",
    "lovelace": "Ada Lovelace wrote a program for an engine. She was a daughter of Lord Byron. She died in London.",
}
QUESTIONS = {
    "In which year did Napoleon become emperor?": ("napoleon", "He became emperor in 1804."),
    "Where did Napoleon die?": ("napoleon", "He died on Saint Helena."),
    "What did Marie Curie discover?": ("curie", "She discovered radium with her husband."),
    "Who was Ada Lovelace's father?": ("lovelace", "She was a daughter of Lord Byron."),
    "Where did Darwin live?": ("darwin", "He lived at Down House."),
}
CHUNKS = ("--chunk-size", "45", "--chunk-unit", "chars", "--chunker", "recursive")
METRICS = {
    "ndcg@10",
    "recall@1",
    "recall@5",
    "recall@10",
    "mrr@10",
    "document_hit@1",
    "document_hit@5",
    "document_hit@10",
}


def write_jsonl(file: Path, rows: list[dict[str, Any]]) -> None:
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def question_rows(prefix: str = "", suffix: str = "") -> list[dict[str, Any]]:
    rows = []
    for number, (query, (doc_id, evidence)) in enumerate(QUESTIONS.items()):
        start = PEOPLE[doc_id].index(evidence)
        place = {"doc_id": f"{prefix}{doc_id}{suffix}", "start": start, "end": start + len(evidence)}
        rows.append({"query_id": f"q{number}", "query": query, **place})
    return rows


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set in the span format, `people`, in a folder to work in."""
    work = tmp_path_factory.mktemp("work")
    folder = work / "people"
    folder.mkdir()
    titles = {"napoleon": "Napoleon", "curie": "Marie Curie", "darwin": "Charles Darwin", "lovelace": "Ada Lovelace"}
    rows = [{"doc_id": doc_id, "title": titles[doc_id], "text": text} for doc_id, text in PEOPLE.items()]
    write_jsonl(folder / "documents.jsonl", rows)
    write_jsonl(folder / "queries.jsonl", question_rows())
    return work


def evaluate(work: Path, *arguments: str | Path, **environ: str) -> dict[str, Any]:
    """The JSON of an evaluation that keeps its vectors beside the set."""
    result = run("eval", *arguments, "--cache", work / "cache", "--json", "--quiet", cwd=work, **environ)
    assert result.returncode == 0, result.stderr
    found = answer(result)
    assert found["schema"] == "ctxindex.eval/1"
    return found


def test_the_answer_for_scripts_has_what_was_promised(people: Path) -> None:
    command = ("people", "--method", "late", "--model", "minilm", *CHUNKS, "--threads")
    (one,) = evaluate(people, *command, "1")["runs"]
    assert (one["dataset"], one["method"], one["model"], one["queries"]) == ("people", "late", "minilm", 5)
    assert (one["name"], one["chunks"]) == ("late", 12)
    assert set(one["metrics"]) == METRICS
    assert all(0 <= value <= 1 for value in one["metrics"].values())
    assert one["metrics"]["document_hit@1"] >= one["metrics"]["recall@1"]
    assert one["seconds"]["index"] > 0
    assert one["seconds"]["search"] > 0
    (again,) = evaluate(people, *command, "1")["runs"]
    assert (one["cached_chunks"], again["cached_chunks"]) == (0, 12)
    assert again["metrics"] == one["metrics"]
    assert again["seconds"]["index"] > 0.2 * one["seconds"]["index"], "what was kept counts with the time it took"
    (threads,) = evaluate(people, *command, "2")["runs"]
    assert (threads["cached_chunks"], threads["seconds"]["index"]) == (12, None), "that time says nothing of this run"


def test_configurations_are_compared_on_the_same_chunks(people: Path) -> None:
    others = "bm25+title,independent,independent+title,late,anchor=16,anchor-title,blend=0.5"
    found = evaluate(people, "people", "--method", "bm25", "--compare", others, *CHUNKS)
    names = [one["name"] for one in found["runs"]]
    assert names == [
        "bm25",
        "bm25+title",
        "independent",
        "independent+title",
        "late,anchor=16,anchor-title,blend=0.5",
    ]
    assert {one["chunks"] for one in found["runs"]} == {12}
    by_name = {one["name"]: one["metrics"]["ndcg@10"] for one in found["runs"]}
    assert by_name["bm25+title"] > by_name["bm25"], "pronouns hide from BM25 who is meant, titles do not"
    compared = {one["name"]: one for one in found["comparisons"] if one["metric"] == "ndcg@10"}
    assert set(compared) == set(names[1:])
    for name, one in compared.items():
        assert one["baseline"] == "bm25"
        assert one["difference"] == pytest.approx(by_name[name] - by_name["bm25"], abs=2e-6)
        assert one["interval"][0] <= one["difference"] <= one["interval"][1]
        assert 0 < one["p"] <= one["p_holm"] <= 1


def test_people_are_shown_tables_and_the_next_command(people: Path) -> None:
    flags = ("--compare", "bm25", "--cache", people / "cache")
    result = run("eval", "people", "--method", "independent", *CHUNKS, *flags, cwd=people)
    assert result.returncode == 0, result.stderr
    assert "people: 5 queries, 12 chunks of 4 documents" in result.stdout
    assert "nDCG@10" in result.stdout
    assert "paired differences" in result.stdout
    assert "R@k: share" in result.stdout
    assert "Only 5 questions" in result.stdout
    assert "--report DIR" in result.stdout
    assert "people, bm25: nDCG@10" in result.stderr
    alone = run("eval", "people", *CHUNKS, "--cache", people / "cache", "-q", cwd=people)
    assert "--compare bm25,independent+title,late" in alone.stdout
    assert "default" not in alone.stdout, "the model's own method has a name"
    assert alone.stderr == ""


def test_a_report_is_written_beside_what_is_printed(people: Path, tmp_path: Path) -> None:
    command = ("people", "--method", "bm25", "--compare", "bm25+title", *CHUNKS, "--report", tmp_path / "report")
    evaluate(people, *command)
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "ctxindex eval people" in page
    assert "Who was Ada Lovelace" in page
    assert (tmp_path / "report" / "metrics.csv").read_text(encoding="utf-8").count("ndcg@10") == 2


def test_chunk_sizes_are_swept(people: Path) -> None:
    found = evaluate(people, "people", "--method", "bm25", "--chunk-unit", "chars", "--sweep", "chunk-size=45,60,200")
    points = [(one["sweep"]["value"], one["chunks"]) for one in found["runs"]]
    assert [value for value, _ in points] == [45, 60, 200]
    assert points[0][1] > points[2][1] == 4
    assert found["comparisons"] == []


def test_sub_corpora_are_swept(people: Path) -> None:
    sweep = ("--sweep", "corpus-size=2,4", "--seeds", "2")
    found = evaluate(people, "people", "--method", "bm25", "--compare", "independent", *CHUNKS, *sweep)
    swept = [(one["name"], one["sweep"]["value"], one["sweep"]["seed"], one["documents"]) for one in found["runs"]]
    assert swept == [(name, size, seed, size) for name in ("bm25", "independent") for seed in (0, 1) for size in (2, 4)]
    queries: dict[tuple[str, int], set[int]] = {(one["name"], one["sweep"]["seed"]): set() for one in found["runs"]}
    for one in found["runs"]:
        queries[one["name"], one["sweep"]["seed"]].add(one["queries"])
    assert all(len(counts) == 1 for counts in queries.values()), "one seed asks the same at every size"


def test_an_index_is_evaluated_with_the_vectors_it_holds(people: Path) -> None:
    folder = people / "files"
    folder.mkdir()
    for doc_id, text in PEOPLE.items():
        (folder / f"{doc_id}.txt").write_text(text, encoding="utf-8")
    write_jsonl(people / "asked.jsonl", question_rows("files/", ".txt"))
    made = run("ingest", "files", "--method", "late", *CHUNKS, "--dtype", "float32", "-q", cwd=people)
    assert made.returncode == 0, made.stderr
    found = evaluate(people, "asked.jsonl", "--compare", "late,dtype=float32,bm25")
    stored, again, words = found["runs"]
    assert (stored["name"], stored["method"], stored["chunks"]) == ("stored", "stored", 12)
    assert stored["metrics"] == again["metrics"], "what is stored is what the same settings give"
    assert stored["notes"]["method"] == "late"
    cut = run("eval", "asked.jsonl", "--chunks", "cut", "--json", cwd=people)
    assert (cut.returncode, "--chunks cut" in cut.stderr) == (2, True), "an index has no vectors of other chunks"
    from_files = evaluate(people, "files", "--questions", "asked.jsonl", "--method", "bm25", *CHUNKS)
    assert from_files["runs"][0]["metrics"] == words["metrics"]


def test_other_formats_of_datasets_are_read(people: Path, tmp_path: Path) -> None:
    beir = tmp_path / "beir"
    (beir / "qrels").mkdir(parents=True)
    write_jsonl(beir / "corpus.jsonl", [{"_id": name, "title": "", "text": text} for name, text in PEOPLE.items()])
    write_jsonl(beir / "queries.jsonl", [{"_id": row["query_id"], "text": row["query"]} for row in question_rows()])
    judged = "".join(f"{row['query_id']}\t{row['doc_id']}\t1\n" for row in question_rows())
    (beir / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}", encoding="utf-8")
    conteb = tmp_path / "conteb"
    sentences = {name: [f"{part.rstrip('.')}." for part in text.split(". ")] for name, text in PEOPLE.items()}
    chunks = {f"{name}_{place}": part for name, parts in sentences.items() for place, part in enumerate(parts)}
    names = {part: name for name, part in chunks.items()}
    tables = {
        "documents": {"chunk_id": list(chunks), "chunk": list(chunks.values())},
        "queries": {"query": list(QUESTIONS), "chunk_id": [names[evidence] for _, evidence in QUESTIONS.values()]},
    }
    for table, columns in tables.items():
        (conteb / table).mkdir(parents=True)
        pq.write_table(pa.table(columns), conteb / table / "test-00000-of-00001.parquet")
    documents, passages = evaluate(people, beir, conteb, "--method", "bm25", "--no-cache")["runs"]
    assert (documents["level"], documents["documents"]) == ("document", 4)
    assert (passages["level"], passages["chunks"]) == ("chunk", 12)
    assert documents["metrics"]["ndcg@10"] == 1.0, "every question names its person, and no other"
    assert passages["metrics"]["document_hit@1"] == 1.0


def test_a_language_model_writes_the_context_once(people: Path, tmp_path: Path) -> None:
    with running() as endpoint:
        model = ("--llm", "tiny", "--llm-url", endpoint.url, "--llm-price", "1,2")
        command = ["eval", "people", "--method", "bm25+context", "--compare", "contextual", *CHUNKS, *model]
        first = run(*command, "--cache", tmp_path / "cache", "--json", cwd=people, OPENAI_API_KEY="key")
        assert first.returncode == 0, first.stderr
        assert len(endpoint.requests) == 12, "one a chunk, for both configurations together"
        again = run(*command, "--cache", tmp_path / "cache", "--json", cwd=people, OPENAI_API_KEY="key")
        assert len(endpoint.requests) == 12
    runs = answer(first)["runs"]
    assert [one["name"] for one in runs] == ["bm25+context", "independent+context"]
    assert "12 calls" in runs[0]["notes"]["llm_cost"]
    assert "USD" in runs[0]["notes"]["llm_cost"]
    assert "passage" in runs[0]["notes"]["llm_prompt"]
    assert "tiny" in first.stderr
    assert answer(again)["runs"][0]["metrics"] == runs[0]["metrics"]


def test_a_document_without_text_is_named_and_its_questions_stay_unanswered(people: Path, tmp_path: Path) -> None:
    folder = tmp_path / "blank"
    folder.mkdir()
    rows = [{"doc_id": doc_id, "text": text} for doc_id, text in PEOPLE.items() if doc_id != "darwin"]
    write_jsonl(folder / "documents.jsonl", [*rows, {"doc_id": "darwin", "text": " \n" * 60}])
    write_jsonl(folder / "queries.jsonl", question_rows())
    result = run("eval", folder, "--method", "bm25", *CHUNKS, "--no-cache", "--json", "-q", cwd=people)
    assert result.returncode == 3
    (one,) = answer(result)["runs"]
    assert set(one["unreadable"]) == {"darwin"}
    assert one["queries"] == 5
    assert one["metrics"]["document_hit@10"] == pytest.approx(0.8)
    assert not math.isnan(one["metrics"]["ndcg@10"])


def test_settings_of_a_project_do_not_get_in_the_way(people: Path, tmp_path: Path) -> None:
    written = "\n".join(['method = "late"', "anchor = 16", "chunk_size = 60", 'chunk_unit = "chars"'])
    (tmp_path / "ctxindex.toml").write_text(written, encoding="utf-8")
    flags = ("--no-cache", "--json", "--quiet")
    own = answer(run("eval", people / "people", *flags, cwd=tmp_path))["runs"][0]
    assert (own["method"], own["settings"]["anchor"], own["chunker"]["size"]) == ("late", 16, 60)
    words = answer(run("eval", people / "people", "--method", "bm25", *flags, cwd=tmp_path))["runs"][0]
    assert (words["method"], words["settings"]) == ("bm25", {})
    alone = answer(run("eval", people / "people", "--method", "independent", *flags, cwd=tmp_path))["runs"][0]
    assert "anchor" not in alone["settings"]


def test_the_answer_says_what_was_measured(people: Path) -> None:
    (one,) = evaluate(people, "people", "--method", "independent", "--dims", "64", *CHUNKS)["runs"]
    assert (one["name"], one["settings"]["dims"], one["notes"]["encoder"]["dim"]) == ("independent", 64, 64)
    assert one["chunker"] == {"name": "recursive", "size": 45, "unit": "chars", "overlap": 0, "version": 1}


def test_what_cannot_run_is_found_before_anything_does(people: Path, tmp_path: Path) -> None:
    for late in ("late,anchor=9999", "contextual", "model=nowhere/at-all"):
        command = ("eval", "people", "--method", "independent", "--compare", late, *CHUNKS, "--cache", tmp_path / "new")
        result = run(*command, cwd=people)
        assert result.returncode in (2, 4), result.stderr
        assert "nDCG@10" not in result.stderr
    (tmp_path / "file").write_text("", encoding="utf-8")
    result = run("eval", "people", "--method", "bm25", "--report", tmp_path / "file", cwd=people)
    assert (result.returncode, "--report" in result.stderr, "nDCG@10" in result.stderr) == (2, True, False)


def test_a_question_that_the_model_cannot_read_finds_nothing(people: Path, tmp_path: Path) -> None:
    folder = tmp_path / "unreadable"
    folder.mkdir()
    (folder / "documents.jsonl").write_bytes((people / "people" / "documents.jsonl").read_bytes())
    rows = question_rows()
    rows[0]["query"] = "\u200b"
    write_jsonl(folder / "queries.jsonl", rows)
    both = evaluate(people, folder, "--method", "independent", "--compare", "bm25", *CHUNKS)["runs"]
    assert [one["queries"] for one in both] == [5, 5]
    assert all(one["metrics"]["document_hit@10"] <= 0.8 for one in both)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere"], 2, "nowhere"),
        ([], 2, "DATASET"),
        (["people", "--method", "colbert"], 2, "'colbert' is no method"),
        (["people", "--method", "late-interaction"], 4, "late-interaction"),
        (["people", "--compare", "late+title"], 2, "+title"),
        (["people", "--method", "independent", "--anchor", "16"], 2, "--anchor"),
        (["people", "--method", "bm25", "--anchor", "16"], 2, "--anchor"),
        (["people", "--method", "late", "--compare", "late,chunk-size=9"], 2, "chunk-size"),
        (["people", "--method", "bm25", "--sweep", "size"], 2, "--sweep size"),
        (["people", "--method", "bm25", "--chunks", "given"], 2, "no chunks of its own"),
        (["people", "--method", "contextual"], 2, "--llm"),
        (["people", "--chunks", "given", "--chunk-size", "64"], 2, "--chunk-size"),
        (["people", "--sweep", "chunk-size", "--sweep", "corpus-size"], 2, "one --sweep"),
        (["people", "--sweep", "chunk-size=64", "--chunk-size", "64"], 2, "--chunk-size"),
        (["people", "--seeds", "2"], 2, "--seeds"),
        (["people", "--method", "bm25", "--model", "nowhere/at-all"], 4, "nowhere/at-all"),
        (["people/queries.jsonl"], 4, "ctxindex ingest"),
        (["people/queries.jsonl", "--no-titles"], 2, "--no-titles"),
        (["people", "--method", "independent", "--cache", "people/queries.jsonl"], 2, "--no-cache"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(people: Path, arguments: list[str], code: int, message: str) -> None:
    result = run("eval", *arguments, "--path", "no-index", cwd=people)
    assert (result.returncode, message in result.stderr) == (code, True), result.stderr
    assert "Traceback" not in result.stderr
