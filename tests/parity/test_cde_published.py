"""The released jxm/cde-small-v2 against the similarities that sentence-transformers keeps of it in its own tests.

Its weights are not everywhere, so this runs only where two variables say what to read:

    CTXINDEX_TEST_CDE_V2                the model's folder
    CTXINDEX_TEST_NATURAL_QUESTIONS     sentence-transformers/natural-questions as JSONL, with query and answer a line

What it decides: whether the released weights go with the code beside them, as `Switches` has it, or with another.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from ctxindex.encoding import EncoderOptions, load_encoder
from ctxindex.encoding.cde.published.encoder import PublishedCdeEncoder
from ctxindex.types import EncodedDocument
from tests.encoding.stand_in import chunked

SIMILARITIES = [[0.8778, 0.7851, 0.7810, 0.7781, 0.7966], [0.7916, 0.8648, 0.7845, 0.7865, 0.8136]]
"""Of the first two queries and the first five answers, in the context of the last 512 answers."""


def given(name: str) -> Path:
    variable = f"CTXINDEX_TEST_{name}"
    if not os.environ.get(variable):
        pytest.skip(f"{variable} does not say where the released files are")
    return Path(os.environ[variable])


@pytest.mark.slow
def test_the_released_weights_give_the_similarities_that_are_known_of_them() -> None:
    folder, file = given("CDE_V2"), given("NATURAL_QUESTIONS")
    pairs = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    queries, answers = ([pair[name] for pair in pairs] for name in ("query", "answer"))
    encoder = load_encoder(str(folder), EncoderOptions(device="cpu", dtype="float32"))
    assert isinstance(encoder, PublishedCdeEncoder)
    placed = encoder.with_context(encoder.encode_context(answers[-encoder.context_size :]))
    (documents,) = placed.encode_documents([chunked("answers", answers[:5])])
    assert isinstance(documents, EncodedDocument)
    found = placed.encode_queries(queries[:2]) @ documents.vectors.T
    np.testing.assert_allclose(found, SIMILARITIES, atol=1e-3)
