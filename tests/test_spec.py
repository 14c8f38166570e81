from __future__ import annotations

import json
import uuid
from dataclasses import replace

import pytest

from ctxindex.errors import MismatchError
from ctxindex.spec import ChunkerSpec, EncoderSpec, IndexSpec, chunk_id, describe, revision

ENCODER = EncoderSpec("minilm", "abc", "late", 384, 512, "strict", "sep", 10, "centre")
SPEC = IndexSpec(1, ChunkerSpec("recursive", 128, "tokens", 0), ENCODER)


def test_a_spec_survives_the_store() -> None:
    stored = json.loads(json.dumps(SPEC.to_json()))
    assert IndexSpec.from_json(stored) == SPEC
    assert IndexSpec.from_json(stored).fingerprint == SPEC.fingerprint


@pytest.mark.parametrize(
    "other",
    [
        replace(SPEC, loader=2),
        replace(SPEC, chunker=replace(SPEC.chunker, size=127)),
        replace(SPEC, chunker=replace(SPEC.chunker, version=2)),
        *(
            replace(SPEC, encoder=replace(ENCODER, **{name: value}))  # type: ignore[arg-type]
            for name, value in {
                "digest": "abd", "method": "independent", "max_tokens": 256, "query_prefix": "query: ",
                "dtype": "bfloat16", "document_prefix": "document: ", "pooling": "inclusive", "overlap": 5,
                "storage": "float16", "pool_factor": 2, "skiplist": "model", "query_length": 32,
                "query_expansion": "fixed 32 token 103", "multivector": True, "join": "raw", "windows": "full",
            }.items()
        ),
    ],
)  # fmt: skip
def test_all_that_decides_vectors_is_in_the_fingerprint(other: IndexSpec) -> None:
    assert other.fingerprint != SPEC.fingerprint
    assert len(SPEC.differences(other)) == 1


def test_the_name_of_the_model_is_not() -> None:
    moved = replace(SPEC, encoder=replace(ENCODER, model="/elsewhere/minilm"))
    assert moved.fingerprint == SPEC.fingerprint
    assert SPEC.differences(moved) == []


def test_differences_are_told_with_both_values() -> None:
    other = replace(SPEC, chunker=replace(SPEC.chunker, size=64), encoder=replace(ENCODER, method="independent"))
    assert SPEC.differences(other) == [("chunker.size", 128, 64), ("encoder.method", "late", "independent")]
    assert describe(SPEC.differences(other)).splitlines()[0] == "  chunker.size: index 128, asked for 64"


@pytest.mark.parametrize("values", [{"format_version": 2}, {}, {"format_version": 1, "chunker": {"nothing": 1}}])
def test_a_spec_of_another_format_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(MismatchError, match="index"):
        IndexSpec.from_json(values)


def test_chunk_ids_are_uuids_that_depend_on_all_three() -> None:
    ids = {chunk_id(*key) for key in [("a", "r", 0), ("a", "r", 1), ("a", "s", 0), ("b", "r", 0), ("a r", "", 0)]}
    assert len(ids) == 5
    assert all(uuid.UUID(value).version == 5 for value in ids)
    assert chunk_id("a", "r", 0) == chunk_id("a", "r", 0)


def test_a_revision_depends_on_content_and_fingerprint() -> None:
    assert len({revision("f", "c"), revision("f", "d"), revision("g", "c")}) == 3
