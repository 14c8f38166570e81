"""The arithmetic of `benchmarks/late_interaction_blend.py`, against MaxSim written out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from benchmarks import late_interaction_blend as blend
from ctxindex.encoding.maxsim import max_sim
from ctxindex.encoding.pooling import unit_rows
from tests.encoding.stand_in import chunked, stand_in_encoder
from tests.evaluation.builders import people

if TYPE_CHECKING:
    from ctxindex.types import FloatArray


def some(rng: np.random.Generator, count: int) -> FloatArray:
    return unit_rows(rng.normal(size=(count, 5)))


def test_forms_are_the_formulas() -> None:
    rng = np.random.default_rng(0)
    query = some(rng, 4)
    chunks = [(some(rng, count), some(rng, count)) for count in (1, 3, 7) * 30]
    found = {name: values.sum(axis=0) for name, values in blend.forms(query, chunks).items()}
    for number, (one, other) in enumerate(chunks):
        contextual, isolated = (float(max_sim(query[None], each[None])[0, 0]) for each in (one, other))
        mixed = 0.7 * one + 0.3 * other
        mixed /= np.linalg.norm(mixed, axis=1, keepdims=True)
        expected = {
            "contextual": contextual,
            "isolated": isolated,
            "union": float(max_sim(query[None], np.concatenate([one, other])[None])[0, 0]),
            "weighted 0.3": 0.7 * contextual + 0.3 * isolated,
            "token-wise 0.3": float(max_sim(query[None], mixed[None])[0, 0]),
        }
        np.testing.assert_allclose([found[name][number] for name in expected], list(expected.values()), atol=1e-5)


def test_views_are_of_the_same_tokens_in_order() -> None:
    """Of a model whose state is (id, 1), both views of a token are the same."""
    encoder, _ = stand_in_encoder("late", 48, blend=0.5, isolated="title", anchor=8, anchor_title=True)
    texts = ["who became emperor in 1804 " * 4, "law", "the agreement may be terminated early " * 3]
    source = chunked("a", texts)
    source = replace(source, document=replace(source.document, title="Early Exile"))
    found = blend.views(encoder, replace(people(), documents=(source,)))
    for (contextual, isolated), ids in zip(found, encoder.tokenizer.ids(texts), strict=True):
        np.testing.assert_array_equal(contextual, isolated)
        np.testing.assert_allclose(contextual[:, 0] / contextual[:, 1], ids, rtol=1e-5)
