"""Short memory: batches shrink and the run goes on, with the same vectors; one window too many fails one document."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from ctxindex.encoding.backbone import out_of_memory_told
from ctxindex.encoding.local import LocalEncoder
from ctxindex.encoding.rows import Row
from ctxindex.errors import ModelError
from ctxindex.types import EncodedDocument, FailedDocument
from tests.encoding.stand_in import IdBackbone, chunked, stand_in_encoder

if TYPE_CHECKING:
    from ctxindex.types import FloatArray

DOCUMENTS = [
    chunked(f"d{number}", [f"chunk {n} of document {number} " * (1 + n % 5) for n in range(20)]) for number in range(6)
]


class SmallMemory(IdBackbone):
    """Holds batches of at most `limit` tokens."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit
        self.refused = 0

    def place_sums(self, rows: Sequence[Row]) -> FloatArray:
        if sum(row.length for row in rows) > self.limit:
            self.refused += 1
            raise MemoryError("you tried to allocate 1 byte")
        return super().place_sums(rows)


def encode(limit: int) -> tuple[dict[str, EncodedDocument | FailedDocument], SmallMemory, LocalEncoder]:
    encoder, _ = stand_in_encoder("late", max_tokens=64, batch_tokens=1024)
    backbone = SmallMemory(limit)
    encoder._backbone = backbone
    done = list(encoder.encode_documents(DOCUMENTS))
    found = {one.document.doc_id if isinstance(one, EncodedDocument) else one.doc_id: one for one in done}
    return found, backbone, encoder


def test_batches_are_halved_until_they_fit(caplog: pytest.LogCaptureFixture) -> None:
    whole, _, _ = encode(10**9)
    with caplog.at_level(logging.WARNING, logger="ctxindex"):
        found, backbone, _ = encode(200)
    assert 1 <= backbone.refused <= 4  # remembered, so that not every batch is tried in vain
    assert "out of memory: batches have at most" in caplog.text
    assert found.keys() == whole.keys()
    for doc_id, expected in whole.items():
        one = found[doc_id]
        assert isinstance(one, EncodedDocument)
        assert isinstance(expected, EncodedDocument)
        np.testing.assert_allclose(one.vectors, expected.vectors, atol=1e-6)


def test_what_does_not_fit_at_all_fails_its_document_and_no_other() -> None:
    found, _, _ = encode(63)  # documents have windows of 64 tokens
    assert {type(one) for one in found.values()} == {FailedDocument}
    encoder, _ = stand_in_encoder("late", max_tokens=64, batch_tokens=1024)
    encoder._backbone = SmallMemory(40)
    short = chunked("short", ["a few words", "and some more"])
    done = list(encoder.encode_documents([DOCUMENTS[0], short, DOCUMENTS[1]]))
    assert [type(one) for one in done if isinstance(one, EncodedDocument)] == [EncodedDocument]
    failed = [one for one in done if isinstance(one, FailedDocument)]
    assert sorted(one.doc_id for one in failed) == ["d0", "d1"]
    assert "does not fit in memory: use smaller windows (--max-tokens)" in failed[0].reason
    assert failed[0].source_hash == ""  # the next run tries again


def test_a_query_that_does_not_fit() -> None:
    encoder, _ = stand_in_encoder("late", max_tokens=64)
    encoder._backbone = SmallMemory(3)
    with pytest.raises(ModelError, match="not enough memory to read a query"):
        encoder.encode_queries(["a question of some length"])


def test_how_torch_says_it() -> None:
    cpu = torch.device("cpu")
    with pytest.raises(MemoryError, match="tried to allocate"), out_of_memory_told(cpu):
        torch.empty(10**14)
    with pytest.raises(MemoryError, match="CUDA"), out_of_memory_told(cpu):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
    with pytest.raises(RuntimeError, match="shapes"), out_of_memory_told(cpu):
        raise RuntimeError("shapes do not match")
