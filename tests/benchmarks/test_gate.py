"""The gate of `benchmarks/gate.py`: nothing at first, all at its limit, and what is learnt of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel

from benchmarks import ablations, gate
from benchmarks.gate import COMPARED, HIDDEN, GatedModel, columns_of, relative_seconds, train
from ctxindex.encoding.checkpoint import open_checkpoint
from ctxindex.encoding.local import LocalEncoder
from ctxindex.encoding.rows import Row
from ctxindex.training.batches import Draw
from ctxindex.training.model import ContextualModel
from ctxindex.training.sampling import Batch, Sampler
from tests.training.toys import batch_of, documents, tiny_model

Sees = Callable[[Row, int, int], bool]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models") / "bert"


@pytest.fixture(scope="module")
def loaded(folder: Path) -> tuple[LocalEncoder, ContextualModel]:
    return tiny_model(folder, anchor=6, anchor_title=True)


@pytest.fixture(scope="module")
def rows(loaded: tuple[LocalEncoder, ContextualModel]) -> list[Row]:
    found = [row for one in documents(4, words=2) for row in loaded[0].document_rows(one.source)]
    assert {len(row.places) > 1 for row in found} == {True, False}
    return found


class Stopped(Sampler):
    """Is interrupted in the third step."""

    def batch(self, draw: Draw) -> Batch:
        if draw.step == 2:
            raise KeyboardInterrupt
        return super().batch(draw)


def gated(encoder: LocalEncoder, folder: Path, *, gated: bool = True, masked: bool = False) -> GatedModel:
    return GatedModel(encoder, open_checkpoint(str(folder)), gated=gated, masked=masked).eval()


def expected_sums(folder: Path, rows: list[Row], sees: Sees) -> np.ndarray[Any, Any]:
    """The sums of places by transformers' own attention, row by row, with a mask of what `sees` says."""
    reference = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    sums = []
    for row in rows:
        allowed = [[sees(row, query, key) for key in range(row.length)] for query in range(row.length)]
        mask = torch.where(torch.tensor(allowed), 0.0, -torch.inf)[None, None]
        with torch.no_grad():
            states = reference(torch.from_numpy(row.ids.astype(np.int64))[None], attention_mask=mask)[0][0].numpy()
        sums += [states[place.start : place.end].sum(axis=0) for place in row.places]
    return np.stack(sums)


def own_or_end(row: Row, query: int, key: int) -> bool:
    homes = [place for place in row.places if place.start <= query < place.end]
    return not homes or key in (0, row.length - 1) or homes[0].start <= key < homes[0].end


def test_a_gate_of_zero_is_plain_late_chunking(
    folder: Path, loaded: tuple[LocalEncoder, ContextualModel], rows: list[Row]
) -> None:
    encoder, plain = loaded
    batch = batch_of(encoder, documents(4))
    readings = [*batch.contextual, *batch.queries]
    with torch.no_grad():
        for found, expected in zip(gated(encoder, folder)(readings), plain(readings), strict=True):
            assert (found - expected).abs().max() < 1e-5
    expected_rows = expected_sums(folder, rows, lambda *_: True)
    assert np.abs(gated(encoder, folder).place_sums(rows) - expected_rows).max() < 1e-4  # of sums of many tokens


def test_a_closed_gate_shows_a_chunk_itself_and_the_ends(
    folder: Path, loaded: tuple[LocalEncoder, ContextualModel], rows: list[Row]
) -> None:
    model = gated(loaded[0], folder)
    with torch.no_grad():
        model.b.fill_(HIDDEN)
    found, expected = model.place_sums(rows), expected_sums(folder, rows, own_or_end)
    assert np.abs(found - expected).max() < 1e-4
    assert np.abs(found - expected_sums(folder, rows, lambda *_: True)).max() > 1e-2
    queries = loaded[0].query_rows(["which law governs the agreement?", "Napoleon"])
    of_queries = model.place_sums(queries)
    model.plain = True
    assert np.abs(model.place_sums(rows) - expected).max() > 1e-2
    assert np.abs(model.place_sums(queries) - of_queries).max() < 1e-4  # a query has nothing outside of it


def test_in_a_masked_row_a_chunk_sees_itself_title_and_ends_and_nothing_through_them(
    folder: Path, loaded: tuple[LocalEncoder, ContextualModel], rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "MASKED", 1.0)
    encoder = loaded[0]
    model = gated(encoder, folder, gated=False)
    model.draws = np.random.default_rng(0)
    first = [int(np.flatnonzero(row.ids == encoder.tokenizer.sep_id)[0]) for row in rows]
    assert all(place.start > title for row, title in zip(rows, first, strict=True) for place in row.places)
    titles = {id(row): title for row, title in zip(rows, first, strict=True)}

    def home(row: Row, position: int) -> int:
        if position < titles[id(row)] or position == row.length - 1:
            return -1
        return next((place.chunk for place in row.places if place.start <= position < place.end), -2)

    expected = expected_sums(
        folder, rows, lambda row, query, key: home(row, key) == -1 or home(row, key) == home(row, query)
    )
    assert np.abs(model.place_sums(rows) - expected).max() < 1e-4


def test_columns_are_those_of_chunks_title_and_context(
    loaded: tuple[LocalEncoder, ContextualModel], rows: list[Row]
) -> None:
    row = next(row for row in rows if len(row.places) > 1)
    found = columns_of(row, loaded[0].tokenizer.sep_id)
    assert found[0] == found[-1] == gate.ENDS
    assert found[1] == gate.OPENING
    for number, place in enumerate(row.places):
        assert set(found[place.start : place.end]) == {gate.FIRST + number}
    assert found[row.places[0].end] == gate.CONTEXT  # the separator between two chunks


def test_a_stopped_training_ends_in_the_model_of_one_that_was_not(
    folder: Path, tmp_path: Path, loaded: tuple[LocalEncoder, ContextualModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = ablations.plan_of(next(one for one in ablations.VARIANTS if one.name == COMPARED), 3)
    schedule = replace(plan.schedule, documents=3, precision="float32")
    plan = replace(plan, model=str(folder), encoder=replace(plan.encoder, max_tokens=48, anchor=6), schedule=schedule)
    plan = replace(plan, source_shares={"toys": 1.0})
    data: Any = SimpleNamespace(sources={"toys": documents(6)})
    monkeypatch.setattr(gate, "training_documents", lambda found: found)
    monkeypatch.setattr(gate, "SAVED", 2)

    def trained(file: Path) -> GatedModel:
        model = gated(loaded[0], folder, masked=True)
        train(plan, data, model, loaded[1], file)
        return model

    whole = trained(tmp_path / "whole.pt")
    with monkeypatch.context() as patch:
        patch.setattr(gate, "Sampler", Stopped)
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path / "part.pt")
    again = trained(tmp_path / "part.pt")
    assert all(bool(weight.any()) for weight in (whole.u, whole.b))  # it was learnt
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name
    encoder = loaded[0]
    corpus: Any = SimpleNamespace(documents=[one.source for one in documents(2)])
    assert relative_seconds(whole, encoder, corpus) > 0
