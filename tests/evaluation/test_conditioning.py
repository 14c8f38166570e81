"""CDE encoders are evaluated in the context of the corpus, and in others that are asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctxindex import Index
from ctxindex.encoding import EncoderOptions, load_encoder
from ctxindex.encoding.cde.corpus_context import sample_context
from ctxindex.encoding.cde.encoder import CdeEncoder
from ctxindex.encoding.cde.folder import make_native_cde
from ctxindex.encoding.cde.settings import NativeCde
from ctxindex.errors import ConfigError
from ctxindex.evaluation import Corpus, Run, parse_configurations
from ctxindex.evaluation.cache import DiskCache, key_of
from ctxindex.evaluation.evaluator import Evaluator
from ctxindex.spec import SAMPLINGS
from ctxindex.types import ChunkedDocument, EncodedDocument
from tests.cli.command_line import answer
from tests.cli.command_line import run as command
from tests.encoding.cde.tiny_cde import save_published
from tests.encoding.tiny import save_sentence_transformer
from tests.evaluation.builders import people

SIZE = 3


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("models")
    base = save_sentence_transformer(place / "base")
    native = make_native_cde(str(base), place / "native", NativeCde(context_size=SIZE, context_bias_init=1.0))
    return {"native": native, "published": save_published(place / "published", "v2"), "base": base}


def run(text: str, corpus: Corpus | None = None, **more: Any) -> Run:
    (configuration,) = parse_configurations([text])
    evaluator = Evaluator(device="cpu", threads=1, **more)
    evaluator.check([configuration])
    (found,) = evaluator.run(configuration, [corpus or people()])
    return found


def test_the_context_is_sampled_from_the_corpus_that_is_evaluated(models: dict[str, Path], tmp_path: Path) -> None:
    corpus = people()
    told: list[int] = []

    class Watch:
        def begin(self, *_: object) -> None:
            told.clear()

        def advance(self, tokens: int) -> None:
            told.append(tokens)

        def done(self, *_: object) -> None: ...
        def end(self, *_: object) -> None: ...

    found = run(f"cde,model={models['native']},dtype=float32", corpus, cache=tmp_path, watch=Watch())
    encoder = load_encoder(str(models["native"]), EncoderOptions(device="cpu", dtype="float32", threads=1))
    assert isinstance(encoder, CdeEncoder)
    texts = [one.text for one in sample_context(corpus.documents, SIZE, 0)]
    placed = encoder.with_context(encoder.encode_context(texts))
    assert found.notes["encoder"]["context"] == placed.spec.context
    assert {**found.notes["corpus_context"], "seconds": 0} == {"of": corpus.name, "texts": SIZE, "seconds": 0}
    kept = dict(DiskCache(tmp_path, placed.spec).find([key_of(one) for one in corpus.documents]))
    tokens = 0
    for encoded in placed.encode_documents(corpus.documents):
        assert isinstance(encoded, EncodedDocument)
        here = kept[key_of(ChunkedDocument(encoded.document, encoded.chunks))]
        np.testing.assert_allclose(here.vectors, encoded.vectors, atol=1e-3)
        tokens += encoded.n_tokens
    assert sum(told) < 1.5 * tokens, "the tokens of the context are in no plan"
    again = run(f"cde,model={models['native']},dtype=float32", corpus, cache=tmp_path)
    assert again.cached == corpus.n_chunks, "a context is the same again, and so are the vectors"


def test_an_index_of_the_corpus_has_the_same_context(models: dict[str, Path], tmp_path: Path) -> None:
    corpus = people()
    place = tmp_path / "docs"
    place.mkdir()
    for one in corpus.documents:
        (place / f"{one.document.doc_id}.txt").write_text(one.document.text, encoding="utf-8")
    with Index.open(model=str(models["native"]), path=tmp_path / "db", device="cpu", dtype="float32") as index:
        index.ingest(place, root=place)
        assert index.spec is not None
        name = index.spec.encoder.context
    control = run(f"cde,model={models['native']},dtype=float32,context={place}")
    assert control.notes["corpus_context"]["of"] == "docs"
    assert len(name) == len(control.notes["encoder"]["context"]) == 64


def test_another_seed_and_sampling_draw_another_context(models: dict[str, Path]) -> None:
    corpus = people()
    encoder = load_encoder(str(models["native"]), EncoderOptions(device="cpu", dtype="float32", threads=1))
    assert isinstance(encoder, CdeEncoder)
    found = set()
    for settings, seed, sampling in (
        ("", 0, SAMPLINGS[0]),
        (",context_seed=5,context_sampling=uniform-chunk", 5, SAMPLINGS[1]),
    ):
        done = run(f"cde,model={models['native']},dtype=float32{settings}", corpus)
        texts = [one.text for one in sample_context(corpus.documents, SIZE, seed, sampling)]
        assert done.notes["encoder"]["context"] == encoder.encode_context(texts).context_id
        found.add(done.notes["encoder"]["context"])
    assert len(found) == 2


def test_controls_without_and_with_another_context(models: dict[str, Path], tmp_path: Path) -> None:
    file = tmp_path / "other.txt"
    file.write_text("\n\n".join(f"The agreement may be terminated by party {n}." for n in range(9)), encoding="utf-8")
    right = run(f"cde,model={models['native']}")
    null = run(f"cde,model={models['native']},context=null")
    wrong = run(f"cde,model={models['native']},context={file}")
    assert null.notes["encoder"]["context"] == "null"
    assert null.notes["corpus_context"] == {"of": "null", "texts": 0, "seconds": 0.0}
    assert wrong.notes["corpus_context"]["of"] == "other.txt"
    assert len({one.notes["encoder"]["context"] for one in (right, null, wrong)}) == 3


def test_chunks_alone_and_published_models(models: dict[str, Path]) -> None:
    alone = run(f"cde,model={models['native']},windows=chunk")
    assert alone.notes["encoder"]["windows"] == "chunk"
    assert alone.notes["corpus_context"]["texts"] == SIZE
    assert run(f"cde,model={models['published']}").notes["corpus_context"]["texts"] == 5


def test_what_cannot_be_is_told_before_anything_is_encoded(models: dict[str, Path]) -> None:
    (late,) = parse_configurations([f"late,model={models['base']},context=null"])
    (published,) = parse_configurations([f"cde,model={models['published']},context=null"])
    (nowhere,) = parse_configurations([f"cde,model={models['native']},context=./nowhere"])
    (seeded,) = parse_configurations([f"late,model={models['base']},context_seed=1"])
    (drawn,) = parse_configurations([f"cde,model={models['native']},context=null,context_seed=1"])
    for configuration, words in (
        (late, "for method cde"),
        (published, "no vector that stands"),
        (nowhere, "nowhere"),
        (seeded, "context_seed=1 is for method cde"),
        (drawn, "no sample to draw"),
    ):
        with pytest.raises(Exception, match=words) as caught:
            Evaluator(device="cpu").check([configuration])
        assert configuration is nowhere or isinstance(caught.value, ConfigError)


def test_a_flag_for_cde_is_left_out_of_other_methods() -> None:
    late, cde = parse_configurations(["late", "cde"])
    assert late.over({"context": "null"}, {}).settings == {}
    assert cde.over({"context": "null"}, {}).settings == {"context": "null"}
    (null,) = parse_configurations(["cde,context=null"])
    assert late.over({"context_seed": 1, "context_sampling": "uniform-chunk"}, {}).settings == {}
    assert cde.over({"context_seed": 1}, {}).settings == {"context_seed": 1}
    assert null.over({"context_seed": 1}, {}).settings == {"context": "null"}


def test_the_command_line_compares_with_the_controls(models: dict[str, Path], tmp_path: Path) -> None:
    texts = {"law": "The agreement is governed by the law of Delaware.", "life": "Napoleon was born in Corsica."}
    (tmp_path / "docs").mkdir()
    for name, text in texts.items():
        (tmp_path / "docs" / f"{name}.txt").write_text(text, encoding="utf-8")
    question = {"query": "Where was Napoleon born?", "doc_id": "docs/life.txt", "start": 0, "end": 10}
    (tmp_path / "questions.jsonl").write_text(json.dumps(question), encoding="utf-8")
    found = command(
        *("eval", "docs", "--questions", "questions.jsonl", "--model", models["native"], "--method", "cde"),
        *(
            "--compare",
            "cde,context=null",
            "--compare",
            "cde,context=docs",
            "--no-cache",
            "--device",
            "cpu",
            "-q",
            "--json",
        ),
        cwd=tmp_path,
    )
    assert found.returncode == 0, found.stderr
    contexts = [one["notes"]["corpus_context"]["of"] for one in answer(found)["runs"]]
    assert contexts == ["docs", "null", "docs"]
    refused = command("ingest", "docs", "--model", models["base"], "--context", "null", "-q", cwd=tmp_path)
    assert refused.returncode == 2
    assert "--context is for method cde" in refused.stderr
