"""The network in training gives the vectors that the encoder gives, for every way to make them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ctxindex.encoding.local import LocalEncoder
from ctxindex.training.insent import Vectors
from ctxindex.training.model import ContextualModel
from ctxindex.training.objective import blended
from ctxindex.training.readings import Reading, join
from ctxindex.types import ChunkedDocument, EncodedDocument
from tests.encoding.stand_in import chunked
from tests.encoding.test_colbert import PYLATE, pylate, stanford
from tests.encoding.tiny import HIDDEN, save_sentence_transformer, write_json
from tests.training.toys import FACTS, documents, loaded

QUERIES = ["which law governs the agreement?", "Napoleon", "who became emperor in 1804, and then died in exile?"]
TITLED = {"anchor": 12, "anchor_title": True}
CASES: dict[str, dict[str, Any]] = {
    "late": {},
    "anchor, blend with chunks": {"anchor": 12, "blend": 0.3},
    "anchor, title, blend with titled chunks": {**TITLED, "blend": 0.3, "isolated": "title"},
    "first owner": {"owner": "first", "anchor": 8},
    "mean of all windows": {"owner": "mean"},
    "text as it stands": {"join": "raw", "windows": "token-window"},
    "inclusive": {"join": "raw", "pooling": "inclusive"},
    "independent": {"method": "independent"},
    "fewer dims": {"dims": 20, "blend": 0.5},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    from sentence_transformers.base.modules import Dense
    from sentence_transformers.sentence_transformer.modules import LayerNorm, Normalize

    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(3)
    dense = Dense(HIDDEN, 24, activation_function=torch.nn.Tanh())
    residual = Dense(24, 24, bias=False, use_residual=True, activation_function=torch.nn.GELU())
    norm = LayerNorm(24)
    norm.norm.weight.data += torch.randn(24) * 0.1
    norm.norm.bias.data += torch.randn(24) * 0.1
    before: Any = Dense(HIDDEN, HIDDEN, module_input_name="token_embeddings")
    return {
        "bert": save_sentence_transformer(folder / "bert"),
        "dense": save_sentence_transformer(folder / "dense", behind=[dense, norm, residual, Normalize()]),
        "before": save_sentence_transformer(folder / "before", before=[before]),
        "mpnet": save_sentence_transformer(folder / "mpnet", "mpnet"),
        "modernbert": save_sentence_transformer(folder / "modernbert", "modernbert"),
        "qwen3": save_sentence_transformer(folder / "qwen3", "qwen3"),
        "pylate": pylate(folder / "pylate", PYLATE),
        "stanford": stanford(folder / "stanford"),
    }


def sources() -> list[ChunkedDocument]:
    """Several windows, one chunk that is longer than a window, and a document of a single short chunk."""
    long = chunked("long", [FACTS[number % 6] for number in range(14)])
    overlong = chunked("overlong", ["this is Corsica", " ".join(FACTS * 4), "and the law"])
    found = [long, overlong, documents(1)[0].source]
    return [replace(one, document=replace(one.document, title="The Title of it")) for one in found]


def readings(encoder: LocalEncoder, source: ChunkedDocument) -> list[Reading]:
    """The contextual reading of a document and, with a blend, the isolated one."""
    rows, count = encoder.document_rows(source), len(source.chunks)
    parts = [tuple(row for row in rows if row.isolated is isolated) for isolated in (False, True)]
    assert parts[0]
    return [Reading(part, count) for part in parts if part]


def packed(model: ContextualModel, given: Sequence[Reading]) -> list[Vectors]:
    return [model.packed(rows, one) for rows, one in zip(model(given), given, strict=True)]


def expected_of(encoder: LocalEncoder, source: ChunkedDocument) -> EncodedDocument:
    (made,) = encoder.encode_documents([source])
    assert isinstance(made, EncodedDocument), made
    return made


def check_documents(
    encoder: LocalEncoder, model: ContextualModel, chosen: Sequence[ChunkedDocument] | None = None
) -> None:
    for source in chosen or sources():
        given = readings(encoder, source)
        with torch.no_grad():
            views = packed(model, given)
        found = views[0] if len(views) == 1 else blended(views[0], views[1], encoder.spec.blend)
        expected = expected_of(encoder, source)
        np.testing.assert_allclose(found.rows, expected.vectors, atol=1e-5)
        assert found.lengths == expected.lengths


def check_queries(encoder: LocalEncoder, model: ContextualModel) -> None:
    made = encoder.encode_queries(QUERIES)
    with torch.no_grad():
        found = packed(model, [Reading((row,), 1) for row in encoder.query_rows(QUERIES)])
    for one, expected in zip(found, made, strict=True):
        np.testing.assert_allclose(one.rows, np.atleast_2d(expected), atol=1e-5)
        assert one.lengths == ((len(expected),) if encoder.spec.multivector else None)


@pytest.mark.parametrize("case", CASES)
def test_vectors_are_those_of_the_encoder(folders: dict[str, Path], case: str) -> None:
    encoder, model = loaded(folders["bert"], **{"method": "late", "max_tokens": 48, **CASES[case]})
    assert case == "independent" or len(readings(encoder, sources()[0])[0].rows) > 1
    check_documents(encoder, model)
    check_queries(encoder, model)


@pytest.mark.parametrize("name", ["dense", "before", "mpnet", "modernbert", "qwen3"])
def test_models_of_other_kinds(folders: dict[str, Path], name: str) -> None:
    encoder, model = loaded(folders[name], method="late", max_tokens=48, blend=0.3, anchor=6)
    check_documents(encoder, model)
    check_queries(encoder, model)


@pytest.mark.parametrize("name", ["pylate", "stanford"])
@pytest.mark.parametrize("blend", [0, 0.3])
def test_late_interaction(folders: dict[str, Path], name: str, blend: float) -> None:
    encoder, model = loaded(folders[name], max_tokens=48, blend=blend, isolated="title", **TITLED)
    assert len(readings(encoder, sources()[0])) == (2 if blend else 1)
    check_documents(encoder, model)
    check_queries(encoder, model)


def test_a_blend_of_tokens_is_of_the_same_tokens(folders: dict[str, Path]) -> None:
    """Skipped ones are in neither view; with other tokens in one than in the other there is nothing to mix."""
    mixed = {"blend": 0.4, "isolated": "title", "join": "raw", **TITLED}
    encoder, model = loaded(folders["pylate"], max_tokens=48, skiplist="model", **mixed)
    texts = ["born , in . Corsica", " , . ".join(FACTS * 3), ", ."]
    check_documents(encoder, model, [chunked("punctuated", texts), *sources()])
    contextual, isolated = packed(model, readings(encoder, sources()[0]))
    assert contextual.lengths == isolated.lengths
    (other,) = packed(model, readings(encoder, sources()[2])[1:])
    with pytest.raises(ValueError, match="a blend mixes the same tokens"):
        blended(contextual, other, 0.4)


def overlapping(source: ChunkedDocument) -> ChunkedDocument:
    """Every chunk reaches into the next but one."""
    text, starts = source.document.text, [chunk.start for chunk in source.chunks]
    ends = [*starts[2:], len(text), len(text)]
    chunks = [
        replace(chunk, end=end, text=text[chunk.start : end]) for chunk, end in zip(source.chunks, ends, strict=False)
    ]
    return replace(source, chunks=tuple(chunks))


@pytest.mark.parametrize("name", ["bert", "pylate"])
def test_chunks_that_overlap_take_turns_in_windows(folders: dict[str, Path], name: str) -> None:
    method = {} if name == "pylate" else {"method": "late"}
    encoder, model = loaded(folders[name], max_tokens=48, join="raw", windows="token-window", **method)
    source = overlapping(sources()[0])
    owners = [place.chunk for row in encoder.document_rows(source) for place in row.places]
    assert owners != sorted(owners)
    check_documents(encoder, model, [source])


def test_tokens_that_a_model_skips(folders: dict[str, Path]) -> None:
    encoder, model = loaded(folders["pylate"], max_tokens=48, skiplist="model")
    plain, _ = loaded(folders["pylate"], max_tokens=48)
    punctuated = chunked("a", ["napoleon , born . . in corsica ,", ", .", ", law"])
    found, kept = (readings(one, punctuated)[0].lengths for one in (encoder, plain))
    assert (kept[0] - found[0], kept[1] - found[1], kept[2] - found[2]) == (4, 0, 1)
    check_documents(encoder, model, [punctuated, *sources()])
    check_queries(encoder, model)


def test_the_real_model() -> None:
    encoder, model = loaded("minilm", method="late", max_tokens=64, blend=0.4, isolated="title", **TITLED)
    check_documents(encoder, model)
    check_queries(encoder, model)


@pytest.mark.parametrize("name", ["bert", "mpnet", "pylate"])
def test_readings_joined_or_apart_are_the_same(folders: dict[str, Path], name: str) -> None:
    encoder, model = loaded(folders[name], max_tokens=48, **({} if name == "pylate" else {"method": "late"}))
    given = [part for source in sources() for part in readings(encoder, source)]
    given += [Reading((row,), 1) for row in encoder.query_rows(QUERIES)]
    with torch.no_grad():
        together, apart = model(given), [model([one])[0] for one in given]
        (joined,) = model([join(given)])
    np.testing.assert_allclose(torch.cat(together), torch.cat(apart), atol=1e-6)
    np.testing.assert_allclose(joined, torch.cat(apart), atol=1e-6)
    whole = join(given)
    assert (whole.items, whole.tokens) == (sum(one.items for one in given), sum(one.tokens for one in given))
    assert whole.lengths == tuple(length for one in given for length in one.lengths)


@pytest.mark.parametrize("name", ["bert", "mpnet", "qwen3"])
def test_training_mode_changes_nothing(folders: dict[str, Path], tmp_path: Path, name: str) -> None:
    """Dropout is off, whatever a model calls it."""
    folder = shutil.copytree(folders[name], tmp_path / "model")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    dropping = {key: 0.5 for key in config if "dropout" in key and config[key] is not None}
    assert dropping
    write_json(folder / "config.json", config | dropping)
    encoder, model = loaded(folder, method="late", max_tokens=48)
    given = readings(encoder, sources()[0])
    torch.testing.assert_close(model.train()(given), model.eval()(given), atol=0, rtol=0)


def test_all_that_makes_vectors_learns(folders: dict[str, Path]) -> None:
    encoder, model = loaded(folders["dense"], method="late", max_tokens=48)
    (vectors,) = model(readings(encoder, sources()[0]))
    vectors[:, 0].sum().backward()
    without = {name for name, weight in model.named_parameters() if weight.grad is None}
    assert without == {"transformer.pooler.dense.weight", "transformer.pooler.dense.bias"}
    layers: list[Any] = list(model.layers)
    assert {name: tuple(one.shape) for name, one in layers[2].weights.items()} == {"linear_weight": (24, 24)}
    assert set(layers[1].weights) == {"norm_weight", "norm_bias"}


def test_a_chunk_without_a_place_is_refused(folders: dict[str, Path]) -> None:
    encoder, model = loaded(folders["bert"], method="late", max_tokens=48)
    (given,) = readings(encoder, sources()[0])
    with pytest.raises(ValueError, match="item 14 has no tokens"):
        model([replace(given, items=15)])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["bert", "modernbert", "nomic_bert", "eurobert", "qwen3", "mpnet"])
def test_half_precision_trains_every_kind(tmp_path: Path, kind: str, dtype: torch.dtype) -> None:
    """Under autocast, queries and keys that were rotated are float32, and values are not."""
    encoder, model = loaded(save_sentence_transformer(tmp_path / kind, kind), method="late", max_tokens=48)
    given = readings(encoder, sources()[0])
    (expected,) = model(given)
    with torch.autocast("cpu", dtype):
        (found,) = model(given)
    found[:, 0].sum().backward()
    assert any(weight.grad is not None and bool(weight.grad.any()) for weight in model.parameters())
    cosines = (found.detach().float() * expected.detach()).sum(dim=1)
    assert float(cosines.min()) > 0.99
